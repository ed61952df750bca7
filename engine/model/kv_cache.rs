//! A model with room for several sequences, each in a slot of its caches, and two ways through it: any rows of one
//! sequence, and rows of several sequences in one pass, which reads the weights once for all of them. A row's bits are
//! the same either way. Caches grow with the number of slots in use; the other buffers of a pass exist once.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::hidden_states::Hook;
use super::runner::{Activations, ModelRunner};
use super::weights::Weights;
use crate::error::Result;
use crate::gpu::{Buffer, Pass};
use crate::ops::{BatchRow, Gather, KvCache, MAX_ROWS, Phase, Rows, Step, Tensor};

/// A model, its caches, and the two ways through it.
pub struct KvCachePool {
    alone: ModelRunner,
    choices: Buffer,
    layers: Mutex<Vec<LayerCache>>,
    together: OnceLock<Together>,
}

struct LayerCache {
    cache: KvCache,
    slots: usize,
}

/// The sequences whose rows a pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One sequence.
    Alone,
    /// Several sequences.
    Together,
}

/// One row of a pass over several sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedRow {
    /// Its token, unless that is given on the device.
    pub id: u32,
    /// Its sequence's slot of the caches.
    pub slot: usize,
    /// Its position there.
    pub position: usize,
}

/// The way for rows of several sequences. Their logits are taken to where those of a sequence alone are, so that
/// whatever chooses its tokens and accepts them need not know which way its rows went.
pub struct Together {
    passes: ModelRunner,
    batch: Buffer,
    /// By the first of the rows that are taken.
    to_alone: Vec<Gather>,
    /// By the first of the rows that tokens are given to.
    from_alone: Vec<Gather>,
}

impl KvCachePool {
    /// Binds `model` to caches with one slot of `positions` positions. The choice of each output row goes to `choices`,
    /// from among the first `limit` ids.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Limit`] or [`crate::Error::OutOfMemory`] if the caches do not fit the device.
    pub fn new(model: &Arc<Weights>, positions: usize, limit: usize, choices: Buffer) -> Result<KvCachePool> {
        let activations = Arc::new(Activations::new(model, positions)?);
        let caches = ModelRunner::caches(model, 1, positions)?;
        let logits = ModelRunner::room_for_logits(model)?;
        let alone = ModelRunner::bind(model, &activations, &caches, None, limit, &logits, &choices)?;
        let layers = caches.into_iter().map(|cache| LayerCache { cache, slots: 1 }).collect();
        Ok(KvCachePool { alone, choices, layers: Mutex::new(layers), together: OnceLock::new() })
    }

    /// The way for rows of one sequence, in any slot.
    pub fn alone(&self) -> &ModelRunner {
        &self.alone
    }

    /// The buffer that the choices of rows are written to.
    pub fn choices(&self) -> &Buffer {
        &self.choices
    }

    /// The way for rows of several sequences, bound on first use.
    ///
    /// # Errors
    ///
    /// [`crate::Error::OutOfMemory`].
    pub fn together(&self) -> Result<&Together> {
        // Keeps the caches from growing meanwhile.
        let layers = self.layers();
        if let Some(together) = self.together.get() {
            return Ok(together);
        }
        let together = Together::new(self, &layers)?;
        Ok(self.together.get_or_init(|| together))
    }

    /// The runner for `way`, and the buffer that it was bound with, which says where each row is.
    pub(super) fn way(&self, way: Way) -> Result<(&ModelRunner, Option<&Buffer>)> {
        match way {
            Way::Alone => Ok((&self.alone, None)),
            Way::Together => self.together().map(|together| (&together.passes, Some(&together.batch))),
        }
    }

    /// Grows the caches to at least `slots` slots. Their contents stay.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Limit`] or [`crate::Error::OutOfMemory`] if they do not fit the device; those that there
    /// were stay then.
    pub fn reserve(&self, slots: usize) -> Result<()> {
        let mut layers = self.layers();
        // A pass that was recorded with a cache is submitted before that is copied.
        let _turn = self.alone.turn();
        let model = self.alone.model();
        let (device, plan, shape) = (&model.device, &model.plan, model.attention_shape());
        for (index, layer) in layers.iter_mut().enumerate().filter(|(_, layer)| layer.slots < slots) {
            let cache = KvCache::with_slots(device, plan, &shape, slots, self.alone.positions())?;
            // Slots lie one behind the other.
            cache.keys.copy_from(device, &layer.cache.keys, 0, layer.cache.keys.bytes());
            cache.values.copy_from(device, &layer.cache.values, 0, layer.cache.values.bytes());
            let alone = self.alone.bind_cache(None, index, &cache)?;
            if let Some(Together { passes, batch, .. }) = self.together.get() {
                passes.replace_cache(index, passes.bind_cache(Some(batch), index, &cache)?);
            }
            self.alone.replace_cache(index, alone);
            *layer = LayerCache { cache, slots };
        }
        Ok(())
    }

    /// The number of slots.
    pub fn count(&self) -> usize {
        self.layers().iter().map(|layer| layer.slots).min().unwrap_or(0)
    }

    fn layers(&self) -> MutexGuard<'_, Vec<LayerCache>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Together {
    fn new(slots: &KvCachePool, layers: &[LayerCache]) -> Result<Together> {
        let KvCachePool { alone, choices, .. } = slots;
        let (model, (scores, limit)) = (alone.model(), alone.scores());
        let device = &model.device;
        let (batch, logits) = (Rows::buffer(device)?, ModelRunner::room_for_logits(model)?);
        let caches = layers.iter().map(|layer| &layer.cache);
        let passes = ModelRunner::bind(model, alone.activations(), caches, Some(&batch), limit, &logits, choices)?;
        let to_alone = (0..MAX_ROWS).map(|first| Together::taking(model, first, [&logits, scores]));
        let to_alone = to_alone.collect::<Result<_>>()?;
        let from_alone = (0..MAX_ROWS).map(|first| Together::giving(model, first, [alone.words(), passes.words()]));
        let from_alone = from_alone.collect::<Result<_>>()?;
        Ok(Together { passes, batch, to_alone, from_alone })
    }

    /// Creates the [`Gather`] of ids into the rows from row `first` on.
    fn giving(model: &Weights, first: usize, ids: [&Tensor; 2]) -> Result<Gather> {
        // Rows before them stay.
        let rows = (0..first).map(|_| u32::MAX).chain(0..MAX_ROWS as u32).chain(std::iter::repeat(u32::MAX));
        let rows: Vec<u32> = rows.take(ids[1].rows).collect();
        Gather::new(&model.device, &Buffer::with_values(&model.device, "rows given", &rows)?, ids)
    }

    /// Creates the [`Gather`] of the logits of rows from row `first` on.
    fn taking(model: &Weights, first: usize, tensors: [&Tensor; 2]) -> Result<Gather> {
        // Past the last row there is nothing to take.
        let ids: Vec<u32> = (first as u32..).take(MAX_ROWS).collect();
        Gather::new(&model.device, &Buffer::with_values(&model.device, "rows taken", &ids)?, tensors)
    }

    /// Writes what the next pass is to be over: 1 to [`MAX_ROWS`] rows.
    pub(crate) fn place(&self, rows: &[PlacedRow]) {
        let device = &self.passes.model().device;
        let places: Vec<BatchRow> = rows
            .iter()
            .map(|row| BatchRow { position: row.position as u32, slot: row.slot as u32, ..BatchRow::default() })
            .collect();
        let ids: Vec<u32> = rows.iter().map(|row| row.id).collect();
        let count = rows.len() as u32;
        self.passes.step().write(device, 0, &[Step { rows: count, outputs: count, ..Step::default() }]);
        self.batch.write(device, 0, &places);
        self.passes.ids().write(device, 0, &ids);
    }

    /// Records the pass over the placed `rows`, and their logits, with the `taps` of the sequences that have some.
    pub(crate) fn score(&self, pass: &mut Pass, rows: &[PlacedRow], taps: &[&Hook]) -> Result<()> {
        let end = rows.iter().map(|row| row.position + 1).max().unwrap_or(0);
        self.passes.forward(pass, Phase::Decode, rows.len(), end, taps)?;
        self.passes.score(pass, rows.len())
    }

    /// Records that the tokens of a sequence's rows, which are where those of one alone are, go to `rows` rows from row
    /// `first` on. Tokens of rows behind those may be lost.
    pub(crate) fn give(&self, pass: &mut Pass, first: usize, rows: usize) {
        self.from_alone[first].encode(pass, first + rows);
    }

    /// Records that the logits of `rows` rows from row `first` on are taken to where those of a sequence alone are.
    pub(crate) fn take(&self, pass: &mut Pass, first: usize, rows: usize) {
        self.to_alone[first].encode(pass, rows);
    }
}
