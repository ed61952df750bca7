//! Several sequences on one model, one row of each in a pass, which reads the weights once for all of them. Each has a
//! slot of the caches, and a row's bits are those of the same row alone, so that no text depends on the other
//! sequences.
//!
//! The host knows every row's position beforehand; only the tokens are the device's, where each pass takes what the last
//! one chose. So a pass may be submitted before the one before it is read back.

use std::collections::VecDeque;
use std::sync::Arc;

use super::runner::{Activations, ModelRunner};
use super::weights::Weights;
use crate::checkpoint::config::Config;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, KernelPlan, Pass, Readback};
use crate::ops::{BatchIds, BatchRow, BatchSource, MAX_ROWS, Phase, Rows, Step};

/// Sampling parameters of a sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Tokens are drawn from `softmax(logits / temperature)`; 0 takes the likeliest.
    pub temperature: f32,
    /// Names the draws: a prompt, a temperature and a seed give the same tokens, whatever runs beside them.
    pub seed: u32,
}

/// Passes that may be submitted and not read back.
const IN_FLIGHT: usize = 2;

/// A model's forward pass for several sequences.
pub struct Batch {
    /// Runs prompts, one sequence at a time.
    prompts: ModelRunner,
    /// Runs passes.
    passes: ModelRunner,
    batch: Buffer,
    sources: Buffer,
    ids: BatchIds,
    choices: Buffer,
    readbacks: [Readback; IN_FLIGHT],
    slots: Vec<Slot>,
    /// Passes that were submitted and not read back, oldest first.
    in_flight: VecDeque<Submitted>,
    /// Index of the readback for the next pass.
    next_readback: usize,
    positions: usize,
}

/// One sequence, or room for one.
#[derive(Clone)]
struct Slot {
    /// Counts the sequences that were started here, so that rows of one that was stopped are known.
    turn: u64,
    /// Passes that it still takes part in.
    passes: usize,
    /// Position of the next pass's row; not used in a slot without passes.
    position: usize,
    source: BatchSource,
    sampling: Sampling,
}

/// A pass that was submitted: the slot of each row and its turn, and where it is read back.
struct Submitted {
    rows: Vec<(usize, u64)>,
    readback: usize,
}

impl Batch {
    /// Binds `model` to caches for `slots` sequences of `positions` positions each.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] unless `slots` is 1 to [`MAX_ROWS`]; [`Error::Limit`] or [`Error::OutOfMemory`] if the
    /// caches do not fit the device.
    pub fn new(model: &Arc<Weights>, slots: usize, positions: usize) -> Result<Batch> {
        if !(1..=MAX_ROWS).contains(&slots) {
            let reason = format!("{slots} sequences; a pass takes 1 to {MAX_ROWS}");
            return Err(Error::Option { option: "parallel", reason });
        }
        let device = &model.device;
        let limit = model.config.vocab_size;
        let activations = Arc::new(Activations::new(model, positions)?);
        let caches = ModelRunner::caches(model, slots, positions)?;
        let words = |label, count: usize| Buffer::storage(device, label, 4 * count as u64);
        let (batch, choices) = (Rows::buffer(device)?, words("choices", MAX_ROWS)?);
        let logits = ModelRunner::room_for_logits(model)?;
        let prompts = ModelRunner::bind(model, &activations, &caches, None, limit, &logits, &choices)?;
        let passes = ModelRunner::bind(model, &activations, &caches, Some(&batch), limit, &logits, &choices)?;
        let sources = Buffer::storage(device, "batch sources", (MAX_ROWS * size_of::<BatchSource>()) as u64)?;
        let empty = Slot {
            turn: 0,
            passes: 0,
            position: 0,
            source: BatchSource::token(0),
            sampling: Sampling { temperature: 0.0, seed: 0 },
        };
        Ok(Batch {
            ids: BatchIds::new(device, passes.step(), &sources, &choices, passes.ids())?,
            readbacks: [Readback::new(device, choices.bytes())?, Readback::new(device, choices.bytes())?],
            prompts,
            passes,
            batch,
            sources,
            choices,
            slots: vec![empty; slots],
            in_flight: VecDeque::new(),
            next_readback: 0,
            positions,
        })
    }

    /// Checks that caches for `slots` sequences of `positions` positions can be bound, before any upload.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`].
    pub fn check(device: &Device, plan: &KernelPlan, config: &Config, slots: usize, positions: usize) -> Result<()> {
        ModelRunner::check_slots(device, plan, config, slots, positions)
    }

    /// The model it runs.
    pub fn model(&self) -> &Arc<Weights> {
        self.passes.model()
    }

    /// Reads `prompt` into slot `slot`, in the place of what was there, all of it but the last token, which is a row of the
    /// next pass. Then `tokens` passes write a token each.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPrompt`], [`Error::TokenRange`]; [`Error::ContextFull`] if prompt and tokens are more than
    /// the positions; [`Error::Option`] if the temperature is no number from 0 on; as [`Device::check`].
    pub fn start(&mut self, slot: usize, prompt: &[u32], tokens: usize, sampling: Sampling) -> Result<()> {
        let Some((&last, known)) = prompt.split_last() else { return Err(Error::EmptyPrompt) };
        let Sampling { temperature, .. } = sampling;
        if !(temperature.is_finite() && temperature >= 0.0) {
            let reason = format!("{temperature} is not a number from 0 on");
            return Err(Error::Option { option: "temperature", reason });
        }
        let vocab = self.model().config.vocab_size;
        if last as usize >= vocab {
            return Err(Error::TokenRange { what: "token", id: last, vocab });
        }
        if prompt.len() + tokens > self.positions {
            return Err(Error::ContextFull { tokens: prompt.len() + tokens, context: self.positions });
        }
        self.stop(slot);
        self.prompts.prefill_slot(slot, known, 0, &[], &|| true)?;
        let turn = self.slots[slot].turn;
        self.slots[slot] =
            Slot { turn, passes: tokens, position: known.len(), source: BatchSource::token(last), sampling };
        Ok(())
    }

    /// Ends the sequence in slot `slot`: it takes part in no further pass, and what it wrote in those in flight is
    /// dropped.
    pub fn stop(&mut self, slot: usize) {
        self.slots[slot].turn += 1;
        self.slots[slot].passes = 0;
    }

    /// The number of sequences with a row in the next pass.
    pub fn live(&self) -> usize {
        self.slots.iter().filter(|slot| slot.passes > 0).count()
    }

    /// The number of passes that were submitted and not read back, at most 2.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Submits a pass over one row of each live sequence. Without any, or with two passes in flight, nothing happens.
    ///
    /// # Errors
    ///
    /// As [`Device::check`].
    pub fn submit(&mut self) -> Result<()> {
        let count = self.live();
        if count == 0 || self.in_flight.len() == IN_FLIGHT {
            return Ok(());
        }
        let (mut rows, mut sources, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        for (index, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.passes > 0) {
            let Sampling { seed, temperature } = slot.sampling;
            rows.push(BatchRow { position: slot.position as u32, slot: index as u32, seed, temperature });
            sources.push(slot.source);
            slot.source = BatchSource::row(slots.len());
            slot.position += 1;
            slot.passes -= 1;
            slots.push((index, slot.turn));
        }
        let end = rows.iter().map(|row| row.position as usize + 1).max().unwrap_or(0);
        let step = Step { rows: count as u32, outputs: count as u32, ..Step::default() };
        let device = &self.passes.model().device;
        self.passes.step().write(device, 0, &[step]);
        self.batch.write(device, 0, &rows);
        self.sources.write(device, 0, &sources);
        Pass::submit(device, Some((&self.choices, &self.readbacks[self.next_readback])), |pass| {
            pass.section("batch");
            self.ids.encode(pass, count);
            self.passes.forward(pass, Phase::Decode, count, end, &[])?;
            self.passes.choose(pass, count)
        })?;
        self.in_flight.push_back(Submitted { rows: slots, readback: self.next_readback });
        self.next_readback = (self.next_readback + 1) % IN_FLIGHT;
        Ok(())
    }

    /// Waits for the oldest pass in flight, and gives the slot and the token of each of its rows whose sequence was not
    /// stopped since; nothing if none is in flight.
    ///
    /// # Errors
    ///
    /// As [`Device::check`].
    pub fn land(&mut self) -> Result<Vec<(usize, u32)>> {
        let Some(Submitted { rows, readback }) = self.in_flight.pop_front() else { return Ok(Vec::new()) };
        let tokens: Vec<u32> = self.readbacks[readback].read(&self.model().device, rows.len())?;
        let current = rows.into_iter().zip(tokens).filter(|((slot, turn), _)| self.slots[*slot].turn == *turn);
        Ok(current.map(|((slot, _), token)| (slot, token)).collect())
    }

    /// The logits of the last pass's rows, in the order of their slots, `[rows, vocab]`.
    ///
    /// # Errors
    ///
    /// As [`Device::check`].
    pub fn logits(&self, rows: usize) -> Result<Vec<f32>> {
        self.passes.logits(rows)
    }
}
