//! Plan of a model on a device, known from its files alone, and the memory that it will need there. Reports and
//! refusals take their sums from here; a test compares them with the actual allocations.

use super::runner::{Activations, ModelRunner};
use super::target_states::TargetStates;
use super::tensor_map::{
    Stacked, TensorMap, check_unused, end_matrices, expected_matrices, layer_matrices, projection,
};
use super::tied_draft::{self, MASK_EMBEDDING};
use super::weight_dtype::WeightDtype;
use super::weights::Weights;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::Config;
use crate::error::{Error, Result};
use crate::gpu::{Device, KernelPlan};
use crate::ops::{Matrix, WeightFormat};

/// Device memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Weights, padded as they lie there.
    pub weights: u64,
    /// Keys and values of the whole context.
    pub caches: u64,
    /// Working memory of passes: activations, logits, tables.
    pub scratch: u64,
}

impl MemoryEstimate {
    /// All of it.
    pub fn total(&self) -> u64 {
        [self.weights, self.caches, self.scratch].into_iter().fold(0, u64::saturating_add)
    }

    /// Checks that it fits: at most `limit` bytes, or without a limit, what the device is known to have.
    ///
    /// # Errors
    ///
    /// [`Error::DoesNotFit`]; `hint` says what could be used instead.
    pub fn check(&self, device: &Device, limit: Option<u64>, hint: &'static str) -> Result<()> {
        let MemoryEstimate { weights, caches, scratch } = *self;
        match limit.or(device.memory().total) {
            Some(available) if self.total() > available => Err(Error::DoesNotFit {
                adapter: device.name(),
                needed: self.total(),
                weights,
                caches,
                scratch,
                available,
                hint,
            }),
            _ => Ok(()),
        }
    }
}

impl std::ops::Add for MemoryEstimate {
    type Output = MemoryEstimate;

    fn add(self, other: MemoryEstimate) -> MemoryEstimate {
        let sum = u64::saturating_add;
        MemoryEstimate {
            weights: sum(self.weights, other.weights),
            caches: sum(self.caches, other.caches),
            scratch: sum(self.scratch, other.scratch),
        }
    }
}

/// A model that is not uploaded: what its matrices will be.
#[derive(Debug, Clone)]
pub struct MemoryPlan {
    config: Config,
    /// None if it is a target's.
    embedding: Option<MatrixPlan>,
    /// None if it is the embedding, or a target's.
    own_head: Option<MatrixPlan>,
    head_rows: usize,
    layers: Vec<[MatrixPlan; 4]>,
    /// The projection of the target's states, in a draft that reads them.
    projection: Option<MatrixPlan>,
    /// Gains, biases, and the ids of a reduced vocabulary, in bytes.
    vectors: u64,
    /// Multiplications that a row of the target costs, where this is a draft's and the target is known.
    target_row: u64,
}

/// A matrix that is not uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MatrixPlan {
    /// The formats of its rows, and how many there are of each.
    sections: Vec<(WeightFormat, usize)>,
    columns: usize,
    /// `true` if blocks of gate rows and up rows alternate.
    is_pair: bool,
}

impl MatrixPlan {
    fn new(stacks: &[Stacked], columns: usize, is_pair: bool) -> MatrixPlan {
        let sections = stacks.iter().map(|stack| (stack.format, stack.rows())).collect();
        MatrixPlan { sections, columns, is_pair }
    }

    fn rows(&self) -> usize {
        self.sections.iter().map(|(_, rows)| rows).sum()
    }

    fn weights(&self) -> u64 {
        (self.rows() * self.columns) as u64
    }

    /// Device memory.
    fn bytes(&self, plan: &KernelPlan) -> u64 {
        let bytes = |&(format, rows): &(WeightFormat, usize)| {
            let rows = if self.is_pair { Matrix::pair_rows(plan, rows / 2) } else { rows };
            Matrix::expected_bytes(plan, format, [rows, self.columns])
        };
        self.sections.iter().map(bytes).sum()
    }

    /// The same without what pads it.
    fn unpadded_bytes(&self) -> u64 {
        self.sections.iter().map(|(format, rows)| (rows * format.row_bytes(self.columns)) as u64).sum()
    }
}

impl MemoryPlan {
    /// Plans the weights of `checkpoint`, which `config` must describe. A draft without embeddings of its own shares
    /// those of `target`; without a target they are assumed to be in 16 bits, or in F32 if all weights are.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::Damaged`], as an upload
    /// would.
    pub fn new(
        config: &Config,
        checkpoint: &dyn Checkpoint,
        choice: WeightDtype,
        target: Option<&MemoryPlan>,
    ) -> Result<MemoryPlan> {
        config.check(checkpoint.path())?;
        check_unused(config, checkpoint)?;
        for (name, shape) in expected_matrices(config) {
            checkpoint.expect(&name, &shape)?;
        }
        let single = |parts: &TensorMap| -> Result<MatrixPlan> {
            Ok(MatrixPlan::new(&parts.stacks(checkpoint, choice)?, parts.columns, false))
        };
        let layer = |layer| {
            let [qkv, output, gate_up, down] = layer_matrices(config, layer);
            let pair = MatrixPlan::new(&[gate_up.pair(checkpoint, choice)?], gate_up.columns, true);
            Ok([single(&qkv)?, single(&output)?, pair, single(&down)?])
        };
        let layers = (0..config.layers).map(layer).collect::<Result<_>>()?;
        let projection = projection(config).map(|parts| single(&parts)).transpose()?;
        let hidden = config.hidden_size;
        let [queries, keys] = [config.query_size(), config.key_value_size()];
        let biases = if config.qkv_bias { queries + 2 * keys } else { 0 };
        let gains = 2 * hidden + if config.head_norm { 2 * config.head_dim } else { 0 };
        let mut words = config.layers * (gains + biases) + hidden;
        let target_row = target.map_or(0, MemoryPlan::multiplications_per_row);
        let (mut embedding, mut own_head, mut head_rows) = (None, None, config.vocab_size);
        if config.shared_embeddings {
            checkpoint.expect(MASK_EMBEDDING, &[hidden])?;
            words += hidden;
            if let Some(ids) = tied_draft::vocabulary(config, checkpoint)? {
                let float = if choice == WeightDtype::F32 { WeightFormat::F32 } else { WeightFormat::Bf16 };
                let format = target.and_then(MemoryPlan::head_format).unwrap_or(float);
                words += ids.len();
                head_rows = ids.len();
                own_head = Some(MatrixPlan { sections: vec![(format, ids.len())], columns: hidden, is_pair: false });
            }
        } else {
            let [first, last] = end_matrices(config);
            embedding = Some(single(&first)?);
            own_head = if config.tied_head { None } else { Some(single(&last)?) };
        }
        let config = config.clone();
        Ok(MemoryPlan {
            config,
            embedding,
            own_head,
            head_rows,
            layers,
            projection,
            vectors: 4 * words as u64,
            target_row,
        })
    }

    /// Multiplications that one row costs outside attention.
    fn multiplications_per_row(&self) -> u64 {
        let head = (self.head_rows * self.config.hidden_size) as u64;
        self.passing().map(MatrixPlan::weights).sum::<u64>() + head
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The format of the rows of its head, its own or the embedding's.
    fn head_format(&self) -> Option<WeightFormat> {
        let head = self.own_head.as_ref().or(self.embedding.as_ref())?;
        head.sections.first().map(|&(format, _)| format)
    }

    /// The matrices that every pass reads, except the head.
    fn passing(&self) -> impl Iterator<Item = &MatrixPlan> {
        self.layers.iter().flatten().chain(&self.projection)
    }

    fn matrices(&self) -> impl Iterator<Item = &MatrixPlan> {
        self.passing().chain(&self.embedding).chain(&self.own_head)
    }

    /// The formats of its own matrices, with the weights of each, most weights first.
    pub fn formats(&self) -> Vec<(WeightFormat, u64)> {
        let mut formats: Vec<(WeightFormat, u64)> = Vec::new();
        for matrix in self.matrices() {
            for &(format, rows) in &matrix.sections {
                let weights = (rows * matrix.columns) as u64;
                match formats.iter_mut().find(|(known, _)| *known == format) {
                    Some((_, sum)) => *sum += weights,
                    None => formats.push((format, weights)),
                }
            }
        }
        formats.sort_by_key(|(_, weights)| std::cmp::Reverse(*weights));
        formats
    }

    /// Device memory that its own weights will take under `plan`.
    pub fn weight_bytes(&self, plan: &KernelPlan) -> u64 {
        self.matrices().map(|matrix| matrix.bytes(plan)).sum::<u64>() + self.vectors
    }

    /// Device memory of its matrices, without what pads them. It takes no device to know.
    pub(super) fn unpadded_bytes(&self) -> u64 {
        self.matrices().map(MatrixPlan::unpadded_bytes).sum()
    }

    /// Bytes of weights that one pass reads: all layers and the head, whosever it is.
    pub fn pass_bytes(&self, plan: &KernelPlan, target: Option<&MemoryPlan>) -> u64 {
        let head_of = |blueprint: &MemoryPlan| {
            blueprint.own_head.as_ref().or(blueprint.embedding.as_ref()).map(|head| head.bytes(plan))
        };
        let head = head_of(self).or_else(|| head_of(target?)).unwrap_or(0);
        self.passing().map(|matrix| matrix.bytes(plan)).sum::<u64>() + head
    }

    /// Device memory that a draft without embeddings of its own takes for copies of those of `target`, where that is on
    /// another device.
    pub fn copy_bytes(&self, plan: &KernelPlan, target: &MemoryPlan) -> u64 {
        let copied = |matrix: &Option<MatrixPlan>| matrix.as_ref().map_or(0, |matrix| matrix.bytes(plan));
        match (&self.embedding, &self.own_head) {
            (Some(_), _) => 0,
            (None, Some(_)) => copied(&target.embedding),
            (None, None) => copied(&target.embedding) + copied(&target.own_head),
        }
    }

    /// Layers at even distances that hold `bytes` bytes, two at least, and one of each kind: formats may differ from the
    /// first layer to the last.
    pub(super) fn sample_layers(&self, plan: &KernelPlan, bytes: u64) -> Vec<usize> {
        let all = self.layers.len();
        let sum: u64 = self.layers.iter().flatten().map(|matrix| matrix.bytes(plan)).sum();
        let mean = (sum / all as u64).max(1);
        let some = (bytes.div_ceil(mean) as usize).max(2).min(all);
        let mut chosen: Vec<usize> = (0..some).map(|index| (2 * index + 1) * all / (2 * some)).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            if !chosen.iter().any(|&chosen| self.layers[chosen] == *layer) {
                chosen.push(index);
            }
        }
        chosen.sort_unstable();
        chosen
    }

    /// The memory needed with one sequence on it, as by [`MemoryPlan::sequence_need`].
    pub fn need(&self, device: &Device, plan: &KernelPlan, positions: usize) -> MemoryEstimate {
        MemoryEstimate { weights: self.weight_bytes(plan), ..self.sequence_need(device, plan, positions) }
    }

    /// The memory needed by a sequence on it with caches for `positions` positions, without the weights.
    pub fn sequence_need(&self, device: &Device, plan: &KernelPlan, positions: usize) -> MemoryEstimate {
        let sizes = [self.multiplications_per_row(), self.head_rows as u64];
        let states = TargetStates::scratch_bytes(device, plan, &self.config, self.target_row);
        MemoryEstimate {
            weights: 0,
            caches: ModelRunner::cache_bytes(plan.cache, &self.config, positions),
            scratch: states + Activations::expected_bytes(device, plan, &self.config, sizes, positions),
        }
    }
}

impl Weights {
    /// Device memory that the weights of `checkpoint` will take, the padding of the device's layout aside, and without what
    /// a draft shares with its target. It takes no device to know.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::Damaged`], as an upload would.
    pub fn expected_bytes(config: &Config, checkpoint: &dyn Checkpoint, choice: WeightDtype) -> Result<u64> {
        Ok(MemoryPlan::new(config, checkpoint, choice, None)?.unpadded_bytes())
    }
}
