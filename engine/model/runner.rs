//! A model's forward pass with every operand bound, and the caches of the sequences that it is run for.
//!
//! Rows of any number of sequences go through it in one pass, which reads the weights once for all of them; a row's bits do
//! not depend on the rows beside it. Where all rows are of one sequence, prompts among them, attention shares its keys
//! between rows. Caches grow with the number of slots in use; the other buffers exist once.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use super::pass_hook::{Batching, NoHook, PassHook};
use super::rope_table;
use super::submit_pace::SubmitPace;
use super::tied_draft::TargetEmbeddings;
use super::weights::{FeedForwardWeights, Weights, attention_shape, mixture};
use crate::checkpoint::config::{Config, Experts};
use crate::error::{Error, OptionName, Result};
use crate::gpu::{Buffer, CacheFormat, Device, KernelPlan, Pass, QuantisedProducts, Readback};
use crate::ops::{
    Argmax, Attention, AttentionScratch, Embedding, Epilogue, ExpertMatmul, ExpertRoute, ExpertSum, KeptStates,
    KvCache, MAX_ROWS, Matmul, NormRows, PassRow, Phase, QuantiseRows, RmsNorm, Rope, RopeGains, Routing, RowRange,
    Rows, Step, Tensor,
};

/// Most rows of a prompt that run in one submit.
const MAX_PROMPT_ROWS: usize = 512;
/// Multiplications that one submit may ask for at most, however fast the device: what [`SubmitPace`] may grow to.
const SUBMIT_MULTIPLICATIONS: u64 = 250_000_000_000;

/// A model, its caches, and its forward pass.
pub struct ModelRunner {
    model: Arc<Weights>,
    activations: Activations,
    logits: Tensor,
    step: Buffer,
    batch: Buffer,
    ids: Buffer,
    embedding: Embedding,
    layers: Vec<Layer>,
    caches: RwLock<Caches>,
    final_norm: RmsNorm,
    head: Matmul,
    likeliest: Argmax,
    /// The first logits of a row, which are those of tokens that may be chosen.
    limit: usize,
    fingerprint: OnceLock<u32>,
}

/// The caches of all layers, and the operations that use them.
struct Caches {
    layers: Vec<LayerCache>,
    /// For passes over the rows of one sequence.
    one: Vec<CachedOps>,
    /// For passes over rows of several, once there are such.
    many: Option<Vec<CachedOps>>,
}

struct LayerCache {
    cache: KvCache,
    slots: usize,
}

/// One decoder layer (pre-norm, grouped-query attention, SwiGLU, by one feed-forward layer or by experts).
struct Layer {
    attention_norm: RmsNorm,
    qkv: Matmul,
    output: Matmul,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
}

/// Operations of a feed-forward layer.
enum FeedForward {
    Dense { gate_up: Matmul, down: Matmul },
    Experts { router: Matmul, route: ExpertRoute, gate_up: ExpertMatmul, down: ExpertMatmul, sum: ExpertSum },
}

impl FeedForward {
    fn encode(&self, pass: &mut Pass, role: Phase, rows: usize) -> Result<()> {
        match self {
            FeedForward::Dense { gate_up, down } => {
                gate_up.encode(pass, role, rows)?;
                down.encode(pass, role, rows)
            }
            FeedForward::Experts { router, route, gate_up, down, sum } => {
                router.encode(pass, role, rows)?;
                route.encode(pass, rows)?;
                gate_up.encode(pass, rows)?;
                down.encode(pass, rows)?;
                sum.encode(pass, rows);
                Ok(())
            }
        }
    }
}

/// The operations of a layer that use its cache.
struct CachedOps {
    rope: Rope,
    attention: Attention,
}

/// Activations, shared by all layers: one layer is done before the next begins.
pub(super) struct Activations {
    /// Held from the first word that the host writes for a pass until the pass is submitted.
    turn: Mutex<()>,
    prompt_rows: usize,
    pace: Mutex<SubmitPace>,
    positions: usize,
    hidden: Tensor,
    normed: Tensor,
    qkv: Tensor,
    query: Tensor,
    attended: Tensor,
    gated: Tensor,
    experts: Option<ExpertActivations>,
    scratch: AttentionScratch,
    angles: Buffer,
}

/// Activations of a mixture of experts.
struct ExpertActivations {
    scores: Tensor,
    routing: Routing,
    normalised: bool,
    /// A row for each pair of a row and an expert.
    gated: Tensor,
    /// Likewise.
    outputs: Tensor,
}

impl ModelRunner {
    /// Binds `model` to caches with one slot of `positions` positions. The likeliest token of each output row goes to
    /// `choices`, from among the first `limit` ids, as far as the head has rows for them.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] or [`Error::OutOfMemory`] if the caches do not fit the device.
    pub fn new(model: &Arc<Weights>, positions: usize, limit: usize, choices: &Buffer) -> Result<ModelRunner> {
        let (device, plan, config) = (&model.device, &model.plan, &model.config);
        let activations = Activations::new(model, positions)?;
        let a = &activations;
        let logits = Tensor::new(device, "logits", MAX_ROWS, model.head().outputs())?;
        let (step, batch) = (Buffer::shared::<Step>(device, "step")?, PassRow::buffer(device)?);
        let ids = Buffer::storage(device, "ids", 4 * a.prompt_rows.max(2 * MAX_ROWS) as u64)?;
        let layers = (0..model.layers.len()).map(|layer| Layer::new(model, layer, &step, a));
        let layers = layers.collect::<Result<_>>()?;
        let shape = model.attention_shape();
        let cache = || Ok(LayerCache { cache: KvCache::new(device, plan, &shape, positions)?, slots: 1 });
        let caches = model.layers.iter().map(|_| cache()).collect::<Result<Vec<_>>>()?;
        let one = CachedOps::bind(model, Rows::One(&step), a, &caches)?;
        let mask_row = model.shared.as_ref().map(TargetEmbeddings::mask_row);
        let vocabulary = model.vocabulary();
        let limit = vocabulary.map_or(limit, |vocabulary| vocabulary.below(limit));
        let listed = vocabulary.map(|vocabulary| &vocabulary.buffer);
        let head = [&a.normed, &logits];
        let mut head = Matmul::new(device, plan, &step, model.head(), head, Epilogue::Store, RowRange::Outputs)?;
        Ok(ModelRunner {
            embedding: Embedding::new(device, &model.embedding, mask_row, &ids, &a.hidden)?,
            final_norm: RmsNorm::quantising(
                device,
                &step,
                [&a.hidden, &a.normed],
                &model.final_norm,
                config.norm_epsilon as f32,
                NormRows::Listed(&batch),
                head.take_quantisation(),
            )?,
            head,
            likeliest: Argmax::new(device, [&step, &batch], None, 0, &logits, limit, listed, choices)?,
            limit,
            layers,
            caches: RwLock::new(Caches { layers: caches, one, many: None }),
            model: model.clone(),
            fingerprint: OnceLock::new(),
            activations,
            logits,
            step,
            batch,
            ids,
        })
    }

    /// Grows the caches to at least `slots` slots. Their contents stay.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] or [`Error::OutOfMemory`] if they do not fit the device; the existing ones stay then.
    pub fn reserve(&self, slots: usize) -> Result<()> {
        // A pass that was recorded with a cache is submitted before that is copied.
        let _turn = self.turn();
        let mut caches = self.caches.write().unwrap_or_else(PoisonError::into_inner);
        let Caches { layers, one, many } = &mut *caches;
        let (device, plan, shape) = (self.device(), &self.model.plan, self.model.attention_shape());
        for (index, layer) in layers.iter_mut().enumerate().filter(|(_, layer)| layer.slots < slots) {
            let cache = KvCache::with_slots(device, plan, &shape, slots, self.activations.positions)?;
            // Slots lie one behind the other.
            cache.keys.copy_from(device, &layer.cache.keys, 0, layer.cache.keys.bytes());
            cache.values.copy_from(device, &layer.cache.values, 0, layer.cache.values.bytes());
            let bind = |rows| CachedOps::new(&self.model, index, rows, &self.activations, &cache);
            let (for_one, for_many) = (bind(Rows::One(&self.step))?, many.is_some().then(|| bind(self.many())));
            if let (Some(many), Some(ops)) = (many.as_mut(), for_many.transpose()?) {
                many[index] = ops;
            }
            one[index] = for_one;
            // The old cache's memory goes before the next layer's is asked for.
            *layer = LayerCache { cache, slots };
        }
        Ok(())
    }

    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.caches().layers.iter().map(|layer| layer.slots).min().unwrap_or(0)
    }

    /// What the cache of each layer holds of the first `positions` positions of slot `slot`. Waits for the device.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub(crate) fn read_slot(&self, slot: usize, positions: usize) -> Result<Vec<Vec<u8>>> {
        let (device, shape) = (self.device(), self.model.attention_shape());
        let caches = self.caches();
        caches.layers.iter().map(|layer| layer.cache.read_slot(device, &shape, slot, positions)).collect()
    }

    /// Sets what [`ModelRunner::read_slot`] read of layer `layer`.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub(crate) fn write_slot(&self, slot: usize, positions: usize, layer: usize, bytes: &[u8]) -> Result<()> {
        let (device, shape) = (self.device(), self.model.attention_shape());
        self.caches().layers[layer].cache.write_slot(device, &shape, slot, positions, bytes);
        // Bounds the memory in flight.
        device.flush()
    }

    /// [`Weights::fingerprint`] of the model, which is computed once.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub(crate) fn fingerprint(&self) -> Result<u32> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(*known);
        }
        let computed = self.model.fingerprint()?;
        Ok(*self.fingerprint.get_or_init(|| computed))
    }

    /// Layers that have a cache.
    pub(crate) fn cached_layers(&self) -> usize {
        self.layers.len()
    }

    /// Bytes of a layer that [`ModelRunner::read_slot`] reads.
    pub(crate) fn slot_bytes(&self, positions: usize) -> usize {
        KvCache::bytes(self.model.plan.cache, &self.model.attention_shape(), positions) as usize
    }

    /// Binds what passes over several sequences need, on first use.
    ///
    /// # Errors
    ///
    /// [`Error::Compile`], [`Error::OutOfMemory`].
    pub fn prepare_many(&self) -> Result<()> {
        if self.caches().many.is_none() {
            let mut caches = self.caches.write().unwrap_or_else(PoisonError::into_inner);
            caches.many = Some(CachedOps::bind(&self.model, self.many(), &self.activations, &caches.layers)?);
        }
        Ok(())
    }

    fn caches(&self) -> RwLockReadGuard<'_, Caches> {
        self.caches.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn many(&self) -> Rows<'_> {
        Rows::Many { step: &self.step, batch: &self.batch }
    }

    /// Keeps others from writing what a pass reads (step and ids) until it is submitted.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.activations.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The [`Rows`] of its passes.
    pub(super) fn rows(&self, batching: Batching) -> Rows<'_> {
        match batching {
            Batching::One => Rows::One(&self.step),
            Batching::Many => self.many(),
        }
    }

    /// The residual stream of each row of a pass.
    pub(super) fn hidden(&self) -> &Tensor {
        &self.activations.hidden
    }

    /// Its step, which says how many rows a pass has.
    pub(super) fn step(&self) -> &Buffer {
        &self.step
    }

    /// Room for the rows of a prompt's pass.
    pub(super) fn prompt_rows(&self) -> usize {
        self.activations.prompt_rows
    }

    /// The model it runs.
    pub fn model(&self) -> &Arc<Weights> {
        &self.model
    }

    /// Checks that caches with `slots` slots of `positions` positions, and scratch, can be bound, before any upload.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`].
    pub fn check(device: &Device, plan: &KernelPlan, config: &Config, slots: usize, positions: usize) -> Result<()> {
        let shape = attention_shape(config);
        KvCache::check(device, plan, &shape, slots, positions)?;
        if config.target_layers.is_some() {
            KeptStates::check(device, [slots, positions], config.hidden_size)?;
        }
        AttentionScratch::check(device, plan, &shape, positions)
    }

    /// Device memory that caches for `positions` positions take, with the states of the target if a draft reads those.
    pub fn cache_bytes(format: CacheFormat, config: &Config, positions: usize) -> u64 {
        let shape = attention_shape(config);
        let kept = |_| KeptStates::bytes(positions, config.hidden_size);
        let states = config.target_layers.as_ref().map_or(0, kept);
        (config.layers as u64).saturating_mul(KvCache::bytes(format, &shape, positions)).saturating_add(states)
    }

    /// The buffers that describe a pass: its step, its token ids, and the [`PassRow`]s of its rows and outputs. See
    /// [`crate::ops::BuildInputs`].
    pub fn inputs(&self) -> [&Buffer; 3] {
        [&self.step, &self.ids, &self.batch]
    }

    /// Records the decoder for `rows` rows, all at positions before `end`; what describes them is on the device already.
    /// `hook` says what is done with hidden states.
    ///   h = W_embed\[ids\], and what was kept of the target's states, in a draft that reads them;  for each layer:
    ///   n = RMSNorm(h);  h += Wₒ · Attention(RoPE(W_q·n), RoPE(W_k·n), W_v·n)
    ///   n = RMSNorm(h);  h += W_down · (SiLU(W_gate·n) ⊙ (W_up·n)), or the sum of this of a row's experts by their shares
    ///
    /// # Errors
    ///
    /// [`Error::Compile`] if a kernel does not compile.
    pub fn forward(
        &self,
        pass: &mut Pass,
        role: Phase,
        batching: Batching,
        [rows, end]: [usize; 2],
        hook: &dyn PassHook,
    ) -> Result<()> {
        let caches = self.caches();
        let cached = match (batching, &caches.many) {
            (Batching::Many, Some(many)) => many,
            _ => &caches.one,
        };
        self.embedding.encode(pass, rows);
        hook.before_layers(pass, batching, rows);
        // With a subset of the layers uploaded, they take turns.
        let layers = self.layers.iter().zip(cached).cycle().take(self.model.config.layers);
        for (index, (layer, cached)) in layers.enumerate() {
            pass.layer(Some(index));
            layer.attention_norm.encode(pass, rows);
            layer.qkv.encode(pass, role, rows)?;
            cached.rope.encode(pass, rows);
            cached.attention.encode(pass, role, rows, end)?;
            layer.output.encode(pass, role, rows)?;
            layer.feed_forward_norm.encode(pass, rows);
            layer.feed_forward.encode(pass, role, rows)?;
            hook.after_layer(pass, index, rows);
        }
        pass.layer(None);
        hook.after_layers(pass, role, batching, rows)
    }

    /// Records the choice of the likeliest token of `outputs` rows whose logits are there.
    pub fn choose_likeliest(&self, pass: &mut Pass, outputs: usize) {
        self.likeliest.encode(pass, outputs);
    }

    /// Records the logits of each of the `outputs` output rows: W_head · RMSNorm(h).
    ///
    /// # Errors
    ///
    /// [`Error::Compile`] if a kernel does not compile.
    pub fn score(&self, pass: &mut Pass, outputs: usize) -> Result<()> {
        self.final_norm.encode(pass, outputs);
        self.head.encode(pass, Phase::Decode, outputs)
    }

    /// Runs `tokens` at positions `start..` as prompt rows, in chunks that bound the time of one submit. It waits after
    /// each chunk and stops early if `keep_going` says so. Gives how many tokens were read.
    ///
    /// # Errors
    ///
    /// [`Error::ContextFull`] if they do not fit the caches; as [`Device::check`](crate::gpu::GpuContext::check).
    pub fn prefill(&self, tokens: &[u32], start: usize) -> Result<usize> {
        self.prefill_slot(0, tokens, start, &NoHook, &|| true)
    }

    /// As [`ModelRunner::prefill`], as long as `keep_going`, which is asked between chunks, returns `true`.
    ///
    /// # Errors
    ///
    /// As [`ModelRunner::prefill`].
    pub fn prefill_while(&self, tokens: &[u32], start: usize, keep_going: &dyn Fn() -> bool) -> Result<usize> {
        self.prefill_slot(0, tokens, start, &NoHook, keep_going)
    }

    /// The same in slot `slot` of the caches, with `hook`.
    pub(crate) fn prefill_slot(
        &self,
        slot: usize,
        tokens: &[u32],
        start: usize,
        hook: &dyn PassHook,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<usize> {
        let pace = || self.activations.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read = 0;
        while read < tokens.len() {
            let rows = pace().rows().min(tokens.len() - read);
            self.run_hooked(slot, Phase::Prefill, &tokens[read..read + rows], start + read, 0, hook)?;
            // Kernels are compiled before they are submitted.
            let begin = Instant::now();
            self.device().wait()?;
            pace().took(rows, begin.elapsed());
            read += rows;
            if !keep_going() {
                break;
            }
        }
        Ok(read)
    }

    /// Runs `tokens` at positions `start..` in one pass; the last `outputs` of them get logits and choices.
    ///
    /// # Errors
    ///
    /// [`Error::ContextFull`] if they do not fit the caches, [`Error::Option`] if they are more rows than one
    /// pass takes, [`Error::TokenRange`]; as [`Device::check`](crate::gpu::GpuContext::check).
    pub fn run(&self, role: Phase, tokens: &[u32], start: usize, outputs: usize) -> Result<()> {
        self.run_slot(0, role, tokens, start, outputs)
    }

    /// The same in slot `slot` of the caches.
    pub(crate) fn run_slot(
        &self,
        slot: usize,
        role: Phase,
        tokens: &[u32],
        start: usize,
        outputs: usize,
    ) -> Result<()> {
        self.run_hooked(slot, role, tokens, start, outputs, &NoHook)
    }

    /// The same with `hook`.
    pub(super) fn run_hooked(
        &self,
        slot: usize,
        role: Phase,
        tokens: &[u32],
        start: usize,
        outputs: usize,
        hook: &dyn PassHook,
    ) -> Result<()> {
        self.check_rows(role, tokens, start, outputs)?;
        let _turn = self.turn();
        self.write_rows([slot, start], tokens, outputs);
        Pass::submit(self.device(), None, |pass| {
            pass.section(if role == Phase::Prefill { "prefill" } else { "forward" });
            self.forward(pass, role, Batching::One, [tokens.len(), start + tokens.len()], hook)?;
            if outputs > 0 {
                self.score(pass, outputs)?;
                self.choose_likeliest(pass, outputs);
            }
            Ok(())
        })
    }

    /// Runs `tokens`, [`MAX_ROWS`] at most, at positions `start..` of slot `slot` as rows of a prompt, in one pass that makes
    /// the logits of each. `finish` records what is made of them, of which `copy` is copied.
    ///
    /// # Errors
    ///
    /// As [`ModelRunner::run`].
    pub(crate) fn prefill_scored(
        &self,
        [slot, start]: [usize; 2],
        tokens: &[u32],
        hook: &dyn PassHook,
        copy: (&Buffer, &Readback),
        finish: impl FnOnce(&mut Pass),
    ) -> Result<()> {
        self.check_rows(Phase::Prefill, tokens, start, tokens.len())?;
        let _turn = self.turn();
        self.write_rows([slot, start], tokens, tokens.len());
        Pass::submit(self.device(), Some(copy), |pass| {
            pass.section("prefill");
            self.forward(pass, Phase::Prefill, Batching::One, [tokens.len(), start + tokens.len()], hook)?;
            self.score(pass, tokens.len())?;
            finish(pass);
            Ok(())
        })
    }

    fn check_rows(&self, role: Phase, tokens: &[u32], start: usize, outputs: usize) -> Result<()> {
        let Activations { prompt_rows, positions, .. } = self.activations;
        let most = if role == Phase::Prefill { prompt_rows } else { MAX_ROWS };
        if tokens.is_empty() || tokens.len() > most || outputs > tokens.len().min(MAX_ROWS) {
            return Err(Error::Option {
                option: OptionName::Rows,
                reason: format!("{} rows with {outputs} outputs; one pass takes 1 to {most}", tokens.len()),
            });
        }
        let end = start + tokens.len();
        if end > positions {
            return Err(Error::ContextFull { tokens: end, context: positions });
        }
        let vocab = self.model.config.vocab_size;
        let has_row = |id: u32| (id as usize) < vocab || self.model.config.mask_has_row(id);
        match tokens.iter().find(|&&id| !has_row(id)) {
            Some(&id) => Err(Error::TokenRange { what: "token", id, vocab }),
            None => Ok(()),
        }
    }

    /// Writes what describes a pass over `tokens`, the last `outputs` of which get logits. The turn is held.
    fn write_rows(&self, [slot, start]: [usize; 2], tokens: &[u32], outputs: usize) {
        let (device, first_output) = (self.device(), tokens.len() - outputs);
        let [start_, rows, slot_] = [start, tokens.len(), slot].map(|count| count as u32);
        let step = Step { start: start_, rows, first_output: 0, outputs: outputs as u32, slot: slot_ };
        self.step.write(device, 0, &[step]);
        self.ids.write(device, 0, tokens);
        if outputs > 0 {
            self.batch.write(device, 0, &PassRow::of_one(slot, start, first_output));
        }
    }

    /// The logits of the last pass's first `outputs` output rows, `[outputs, rows of the head]`.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn logits(&self, outputs: usize) -> Result<Vec<f32>> {
        self.logits_of(0, outputs)
    }

    /// The same of the `outputs` output rows from row `first` on.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn logits_of(&self, first: usize, outputs: usize) -> Result<Vec<f32>> {
        let width = self.logits.width;
        self.logits.buffer.read(self.device(), (4 * first * width) as u64, outputs * width)
    }

    /// The logits of a pass's output rows, and how many of each row are those of tokens that may be chosen.
    pub(crate) fn scores(&self) -> (&Tensor, usize) {
        (&self.logits, self.limit)
    }

    fn device(&self) -> &Device {
        &self.model.device
    }
}

impl Activations {
    /// For prompts of any length and positions before `positions`.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] or [`Error::OutOfMemory`] if they do not fit the device.
    pub fn new(model: &Weights, positions: usize) -> Result<Activations> {
        let (device, config, shape) = (&model.device, &model.config, model.attention_shape());
        let rows = prompt_rows(model.multiplications_per_row());
        let [hidden, normed, qkv, query, attended, gated] =
            row_widths(config).map(|(label, width)| Tensor::new(device, label, rows, width));
        let experts = config.experts.as_ref().map(|experts| ExpertActivations::new(device, config, experts, rows));
        Ok(Activations {
            turn: Mutex::default(),
            prompt_rows: rows,
            pace: Mutex::new(match device.is_software() {
                true => SubmitPace::unbounded(rows),
                false => SubmitPace::new(rows),
            }),
            positions,
            hidden: hidden?,
            normed: normed?,
            qkv: qkv?,
            query: query?,
            attended: attended?,
            gated: gated?,
            experts: experts.transpose()?,
            scratch: AttentionScratch::new(device, &model.plan, &shape, positions)?,
            angles: Buffer::with_values(
                device,
                "rotary angles",
                &rope_table::angles(config, angle_positions(positions)),
            )?,
        })
    }

    /// Device memory that [`Activations::new`] will take for a model of `config`, of which a row costs `multiplications`
    /// and whose head has `head_rows` rows.
    pub fn expected_bytes(
        device: &Device,
        plan: &KernelPlan,
        config: &Config,
        [multiplications, head_rows]: [u64; 2],
        positions: usize,
    ) -> u64 {
        let tensor = |rows: usize, width: u64| Buffer::rows_bytes(device, 4 * rows as u64 * width);
        let rows = prompt_rows(multiplications);
        let of_rows: u64 = row_widths(config).into_iter().map(|(_, width)| tensor(rows, width as u64)).sum();
        let of_experts =
            config.experts.as_ref().map_or(0, |experts| ExpertActivations::bytes(device, config, experts, rows));
        let parts: u64 = AttentionScratch::bytes(plan, &attention_shape(config), positions).into_iter().sum();
        let angles = 4 * (angle_positions(positions) * config.head_dim) as u64;
        // The rows that integer products read: normed, attended and gated rows.
        let read = [config.hidden_size, config.query_size(), gated_width(config)];
        of_rows + of_experts + tensor(MAX_ROWS, head_rows) + parts + angles + integer_bytes(plan, &read)
    }
}

impl ExpertActivations {
    fn new(device: &Device, config: &Config, experts: &Experts, rows: usize) -> Result<ExpertActivations> {
        let [scores, gated, outputs] = ExpertActivations::shapes(config, experts, rows)
            .map(|(label, [rows, width])| Tensor::new(device, label, rows, width));
        let routing = Routing::new(device, mixture(experts), rows)?;
        let normalised = experts.normalised;
        Ok(ExpertActivations { scores: scores?, routing, normalised, gated: gated?, outputs: outputs? })
    }

    fn bytes(device: &Device, config: &Config, experts: &Experts, rows: usize) -> u64 {
        let tensor = |(_, [rows, width]): (&str, [usize; 2])| Buffer::rows_bytes(device, 4 * (rows * width) as u64);
        let tensors = ExpertActivations::shapes(config, experts, rows).map(tensor);
        tensors.into_iter().sum::<u64>() + Routing::bytes(mixture(experts), rows)
    }

    /// The tensors for `rows` rows, with their rows and widths.
    fn shapes(config: &Config, experts: &Experts, rows: usize) -> [(&'static str, [usize; 2]); 3] {
        let pairs = rows * experts.used;
        [
            ("scores of experts", [rows, experts.count]),
            ("gated rows of experts", [pairs, experts.feed_forward_size]),
            ("outputs of experts", [pairs, config.hidden_size]),
        ]
    }
}

/// Device memory of rows of the widths `read` as integers, if products are those of integers.
pub(super) fn integer_bytes(plan: &KernelPlan, read: &[usize]) -> u64 {
    match plan.quantised {
        QuantisedProducts::Float => 0,
        QuantisedProducts::Integer { .. } => read.iter().map(|&width| QuantiseRows::bytes(width)).sum(),
    }
}

/// Most rows of a prompt that one submit takes, of a model whose rows cost `multiplications` each.
pub(super) fn prompt_rows(multiplications: u64) -> usize {
    let affordable = SUBMIT_MULTIPLICATIONS / multiplications.max(1);
    affordable.clamp(MAX_ROWS as u64, MAX_PROMPT_ROWS as u64) as usize
}

/// The activations of each row of a pass, with their widths.
fn row_widths(config: &Config) -> [(&'static str, usize); 6] {
    [
        ("hidden", config.hidden_size),
        ("normed", config.hidden_size),
        ("qkv", attention_shape(config).qkv_width()),
        ("query", config.query_size()),
        ("attended", config.query_size()),
        ("gated", gated_width(config)),
    ]
}

/// Width of the gated rows of layers that are no mixtures of experts; 0 if there are none.
fn gated_width(config: &Config) -> usize {
    if config.has_dense_layers() { config.feed_forward_size } else { 0 }
}

/// Positions that there are rotary angles for.
fn angle_positions(positions: usize) -> usize {
    positions.next_multiple_of(64)
}

impl Layer {
    fn new(model: &Weights, layer: usize, step: &Buffer, a: &Activations) -> Result<Layer> {
        let (device, plan, weights) = (&model.device, &model.plan, &model.layers[layer]);
        let epsilon = model.config.norm_epsilon as f32;
        let norm = |gain, planes| {
            RmsNorm::quantising(device, step, [&a.hidden, &a.normed], gain, epsilon, RowRange::All, planes)
        };
        let matmul = |matrix, x, y, finish| Matmul::new(device, plan, step, matrix, [x, y], finish, RowRange::All);
        let bias = weights.qkv_bias.as_ref().map_or(Epilogue::Store, Epilogue::Bias);
        let mut qkv = matmul(&weights.qkv, &a.normed, &a.qkv, bias)?;
        let (feed_forward, planes) = FeedForward::new(model, &weights.feed_forward, step, a)?;
        Ok(Layer {
            attention_norm: norm(&weights.attention_norm, qkv.take_quantisation())?,
            qkv,
            output: matmul(&weights.output, &a.attended, &a.hidden, Epilogue::Add)?,
            feed_forward_norm: norm(&weights.feed_forward_norm, planes)?,
            feed_forward,
        })
    }
}

impl FeedForward {
    /// With the signed bytes of a value that its first product reads, if that is of integers.
    fn new(
        model: &Weights,
        weights: &FeedForwardWeights,
        step: &Buffer,
        a: &Activations,
    ) -> Result<(FeedForward, Option<u32>)> {
        let (device, plan) = (&model.device, &model.plan);
        let matmul =
            |matrix, operands, finish| Matmul::new(device, plan, step, matrix, operands, finish, RowRange::All);
        match weights {
            FeedForwardWeights::Dense { gate_up, down } => {
                let mut gate_up = matmul(gate_up, [&a.normed, &a.gated], Epilogue::Swiglu)?;
                let planes = gate_up.take_quantisation();
                let down = matmul(down, [&a.gated, &a.hidden], Epilogue::Add)?;
                Ok((FeedForward::Dense { gate_up, down }, planes))
            }
            FeedForwardWeights::Experts { router, experts: [gates, downs] } => {
                let expected = vec![MAX_ROWS, router.outputs()];
                let missing = || Error::Shape { op: "expert_route", tensor: "scores", got: Vec::new(), expected };
                let own = a.experts.as_ref().ok_or_else(missing)?;
                let product = |weights, operands, of_pairs| {
                    ExpertMatmul::new(device, plan, weights, &own.routing, operands, of_pairs)
                };
                let mut router = matmul(router, [&a.normed, &own.scores], Epilogue::Store)?;
                let planes = router.take_quantisation();
                let op = FeedForward::Experts {
                    router,
                    route: ExpertRoute::new(device, step, &own.scores, &own.routing, own.normalised)?,
                    gate_up: product(gates, [&a.normed, &own.gated], false)?,
                    down: product(downs, [&own.gated, &own.outputs], true)?,
                    sum: ExpertSum::new(device, &own.routing, [&own.outputs, &a.hidden])?,
                };
                Ok((op, planes))
            }
        }
    }
}

impl CachedOps {
    /// Binds those of all layers, each to its cache.
    fn bind(model: &Weights, rows: Rows, a: &Activations, caches: &[LayerCache]) -> Result<Vec<CachedOps>> {
        let caches = caches.iter().enumerate();
        caches.map(|(layer, LayerCache { cache, .. })| CachedOps::new(model, layer, rows, a, cache)).collect()
    }

    fn new(model: &Weights, layer: usize, rows: Rows, a: &Activations, cache: &KvCache) -> Result<CachedOps> {
        let (device, plan, shape) = (&model.device, &model.plan, model.attention_shape());
        let (weights, window) = (&model.layers[layer], model.config.window(layer));
        let epsilon = model.config.norm_epsilon as f32;
        let gains = weights.head_norm.as_ref().map(|[query, key]| RopeGains { query, key, epsilon });
        Ok(CachedOps {
            rope: Rope::new(device, rows, &shape, &a.angles, [&a.qkv, &a.query], cache, gains)?,
            attention: Attention::new(device, plan, rows, &shape, window, cache, &a.scratch, [&a.query, &a.attended])?,
        })
    }
}
