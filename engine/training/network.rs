//! The draft while it is trained: parameters in f32, the rows of one pass, and its forward and backward passes.
//!
//! The forward kernels are the engine's own prompt kernels. Every layer's input is kept; the other activations for the
//! backward pass are kept too where that is cheap, and computed again layer by layer where it is not. Logits exist for a
//! few rows at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::activations::{ActivationGradients, Activations};
use super::layer::{Layer, LayerParameters};
use super::parameter::{Parameter, Source};
use super::projection::Projection;
use super::rows::PackedRows;
use super::shared::Shared;
use super::teacher::{Loss, Teacher};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::{Config, TargetLayers};
use crate::error::{Error, OptionName, Result};
use crate::gpu::{Buffer, Device, KernelPlan, Pass};
use crate::model::Weights;
use crate::model::rope_table;
use crate::model::tensor_map::check_unused;
use crate::model::tied_draft::MASK_EMBEDDING;
use crate::ops::gradients::{
    Accumulate, CrossEntropy, EmbeddingGradient, InputGradient, Label, Readers, RmsNormGradient, RowLoss, TrainingRow,
    WeightGradient,
};
use crate::ops::{
    Embedding, Epilogue, MAX_ROWS, MaskRow, Matmul, Matrix, Phase, RmsNorm, RowRange, Step, Tensor, WeightFormat,
};

/// Activations of all layers that may be kept, in bytes; beyond, they are computed again.
const KEPT_ACTIVATIONS: u64 = 2 << 30;
/// Logits that exist at a time, in bytes.
const LOGITS: usize = 64 << 20;
/// The most rows that have logits at a time.
const MAX_LOGIT_ROWS: usize = 256;

/// Options of a network: its trained parts and their sources.
pub struct NetworkOptions<'a> {
    /// The draft's hyper-parameters: the base's, with the number of layers that the draft has.
    pub config: &'a Config,
    /// The base's tensors.
    pub checkpoint: &'a dyn Checkpoint,
    /// Layers of the base that the draft begins with.
    pub layers: &'a [usize],
    /// The id that masks have; below the vocabulary's size if embeddings are trained.
    pub mask_token: u32,
    /// `true` to leave embeddings and head as they are, except for the mask's row.
    pub freeze_embeddings: bool,
    /// The tokens that the draft may propose, ascending; only with frozen embeddings.
    pub vocabulary: Option<&'a [u32]>,
    /// Room for the rows of a pass.
    pub rows: usize,
    /// Tokens of the longest sample.
    pub positions: usize,
    /// Target that serves as the teacher, if the loss depends on more than the text.
    pub teacher: Option<&'a Arc<Weights>>,
    /// Loss of a row.
    pub loss: Loss,
    /// States of the teacher that the draft reads beside tokens, numbered as in [`TargetLayers::layers`].
    pub target_layers: &'a [i32],
}

impl NetworkOptions<'_> {
    /// The target layers that the draft reads, as its configuration has them.
    pub fn target(&self) -> Option<TargetLayers> {
        let hidden_size = self.teacher.filter(|_| !self.target_layers.is_empty())?.config().hidden_size;
        Some(TargetLayers::new(self.target_layers.to_vec(), hidden_size))
    }
}

/// A table of a row for each token: the embeddings, the head.
enum Table {
    Frozen(Box<Matrix>),
    Trained(Box<Parameter>),
}

impl Table {
    fn matrix(&self) -> &Matrix {
        match self {
            Table::Frozen(matrix) => matrix,
            Table::Trained(parameter) => parameter.as_matrix().0,
        }
    }

    fn parameter(&self) -> Option<&Parameter> {
        match self {
            Table::Frozen(_) => None,
            Table::Trained(parameter) => Some(parameter),
        }
    }
}

/// The draft, bound.
pub struct Network {
    device: Device,
    shared: Shared,
    ids: Buffer,
    labels: Buffer,
    losses: Buffer,
    /// Angles by position, `[positions, head_dim]`.
    angles: Vec<f32>,
    head_dim: usize,
    capacity: usize,
    vocabulary: Option<Vec<u32>>,
    mask_token: u32,

    table: Table,
    mask: Option<Parameter>,
    head_table: Option<Table>,
    layer_parameters: Vec<LayerParameters>,
    final_norm: Parameter,

    embedding: Embedding,
    projection: Option<Projection>,
    layers: Vec<Layer>,
    keeps_activations: bool,
    head: Head,
    teacher: Option<Teacher>,
    /// Set if the loss needs the teacher, which may be there for its states alone.
    teaches: bool,
    loss: Loss,
    embedding_gradient: EmbeddingGradient,
    readers: [Buffer; 3],
}

/// From the residual stream to the loss and back, for a chunk of rows.
struct Head {
    step: Buffer,
    rows: usize,
    norm: RmsNorm,
    product: Matmul,
    loss: CrossEntropy,
    weights: Option<WeightGradient>,
    input: InputGradient,
    norm_gradient: RmsNormGradient,
}

impl Network {
    /// Uploads what `recipe` asks for.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if a sample could be longer than a layer's attention window, beyond which training's
    /// attention does not forget, or if a layer is a mixture of experts; those of reading the checkpoint;
    /// [`Error::OutOfMemory`], [`Error::Limit`].
    pub fn new(device: &Device, plan: &KernelPlan, recipe: &NetworkOptions) -> Result<Network> {
        let &NetworkOptions { config, checkpoint, mask_token, .. } = recipe;
        if let Some(layer) = recipe.layers.iter().find(|&&layer| config.experts_of(layer).is_some()) {
            let reason = format!(
                "layer {layer} is a mixture of experts, and drafts of those are not trained; begin with a dense model that \
                 has the same tokenizer, and let this one teach it"
            );
            return Err(Error::Option { option: OptionName::Draft, reason });
        }
        check_unused(config, checkpoint)?;
        let shortest = recipe.layers.iter().filter_map(|&layer| config.window(layer)).min();
        if let Some(window) = shortest.filter(|&window| window < recipe.positions) {
            let reason = format!(
                "{} tokens; layers of this model see the last {window} alone, and training is not made for that; take \
                 samples of {window} tokens at most",
                recipe.positions
            );
            return Err(Error::Option { option: OptionName::Positions, reason });
        }
        let (hidden, rows) = (config.hidden_size, recipe.rows.max(MAX_ROWS));
        let named = |name: &str| Source { from: name.to_owned(), to: name.to_owned() };
        let trained = |name| -> Result<Table> {
            let tensors = vec![(named(name), config.vocab_size)];
            Ok(Table::Trained(Box::new(Parameter::matrix(device, plan, checkpoint, tensors, hidden)?)))
        };
        let all: Vec<u32> = (0..config.vocab_size as u32).collect();
        let frozen = |name, ids: &[u32]| -> Result<Table> {
            Ok(Table::Frozen(Box::new(sample_rows(device, plan, checkpoint, name, ids, hidden)?)))
        };
        const TABLE: &str = "model.embed_tokens.weight";
        let head_name = if config.tied_head { TABLE } else { "lm_head.weight" };
        let (table, mask, head_table) = if recipe.freeze_embeddings {
            let table = frozen(TABLE, &all)?;
            let mask = Parameter::of_vector(
                device,
                vec![(MASK_EMBEDDING.to_owned(), hidden)],
                &mean_row(checkpoint, TABLE, [config.vocab_size, hidden])?,
            )?;
            let head = match recipe.vocabulary {
                None if config.tied_head => None,
                vocabulary => Some(frozen(head_name, vocabulary.unwrap_or(&all))?),
            };
            (table, Some(mask), head)
        } else {
            (trained(TABLE)?, None, if config.tied_head { None } else { Some(trained(head_name)?) })
        };
        let layer_parameters = (recipe.layers.iter().enumerate())
            .map(|(to, &from)| LayerParameters::read(device, plan, config, checkpoint, [from, to]))
            .collect::<Result<Vec<_>>>()?;
        let final_norm = Parameter::vector(device, checkpoint, vec![(named("model.norm.weight"), hidden)])?;

        let words = |label, count: usize| Buffer::storage(device, label, 4 * count as u64);
        let shared = Shared {
            step: Buffer::shared::<Step>(device, "step")?,
            rows: Buffer::storage(device, "training rows", (rows * size_of::<TrainingRow>()) as u64)?,
            angles: words("rotary angles", rows * config.head_dim)?,
            gradients: ActivationGradients::new(device, config, rows)?,
        };
        let ids = words("ids", rows)?;
        let labels = Buffer::storage(device, "labels", (rows * size_of::<Label>()) as u64)?;
        let losses = Buffer::storage(device, "losses", (rows * size_of::<RowLoss>()) as u64)?;
        let stream = (0..=recipe.layers.len())
            .map(|_| Tensor::new(device, "hidden", rows, hidden))
            .collect::<Result<Vec<_>>>()?;
        let kept = Activations::bytes(config, rows) * recipe.layers.len() as u64;
        let keeps_activations = kept <= KEPT_ACTIVATIONS;
        let sets = if keeps_activations { recipe.layers.len() } else { 1 };
        let activations =
            (0..sets).map(|_| Activations::new(device, plan, config, rows)).collect::<Result<Vec<_>>>()?;
        let layers = (layer_parameters.iter().enumerate())
            .map(|(index, parameters)| {
                let around = [&stream[index], &stream[index + 1]];
                Layer::new(device, plan, config, &shared, parameters, &activations[index % sets], around)
            })
            .collect::<Result<Vec<_>>>()?;

        let mask_row = mask.as_ref().map(|mask| MaskRow { id: mask_token, row: mask.as_vector()[0] });
        let embedding = Embedding::new(device, table.matrix(), mask_row, &ids, &stream[0])?;
        let readers = [words("read tokens", rows)?, words("first readers", rows + 1)?, words("readers", rows)?];
        let read = Readers { ids: &readers[0], firsts: &readers[1], rows: &readers[2] };
        let gradient = &shared.gradients.hidden;
        let embedding_gradient = match (&table, &mask) {
            (Table::Trained(table), _) => {
                let (matrix, gradients) = table.as_matrix();
                EmbeddingGradient::new(device, read, gradient, matrix, gradients)?
            }
            (Table::Frozen(_), Some(mask)) => EmbeddingGradient::of_row(device, read, gradient, mask.as_vector()[1])?,
            (Table::Frozen(_), None) => unreachable!("a frozen table comes with a mask row"),
        };
        let epsilon = config.norm_epsilon as f32;
        let top = &stream[recipe.layers.len()];
        let head_of = head_table.as_ref().unwrap_or(&table);
        let chunk = Head::rows(head_of.matrix());
        let width = head_of.matrix().outputs();
        let target = recipe.target();
        let teaches = recipe.loss.divergence != 0.0 || recipe.loss.by_acceptance;
        let mut teacher = (recipe.teacher.filter(|_| teaches || target.is_some()))
            .map(|target| Teacher::new(target, [rows, recipe.positions, chunk], recipe.vocabulary, width))
            .transpose()?;
        let bound = |target| Projection::new(device, plan, checkpoint, target, &shared, &stream[0]);
        let projection = target.as_ref().map(bound).transpose()?;
        if let (Some(teacher), Some(target), Some(projection)) = (&mut teacher, &target, &projection) {
            teacher.keep(target, &projection.states)?;
        }
        let taught = teacher.as_ref().filter(|_| teaches).map(Teacher::logits);
        let head = Head::new(device, plan, head_of, &final_norm, epsilon, [top, gradient], [&labels, &losses], taught)?;
        Ok(Network {
            device: device.clone(),
            angles: rope_table::angles(config, recipe.positions),
            head_dim: config.head_dim,
            capacity: rows,
            vocabulary: recipe.vocabulary.map(<[u32]>::to_vec),
            mask_token,
            shared,
            ids,
            labels,
            losses,
            table,
            mask,
            head_table,
            layer_parameters,
            final_norm,
            embedding,
            projection,
            layers,
            keeps_activations,
            head,
            teacher,
            teaches,
            loss: recipe.loss,
            embedding_gradient,
            readers,
        })
    }

    /// All parameters, in a fixed order.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        let tables = self.table.parameter().into_iter().chain(&self.mask);
        let layers = self.layer_parameters.iter().flat_map(LayerParameters::all);
        let projection = self.projection.as_ref().map(|projection| &projection.parameter);
        tables
            .chain(layers)
            .chain(projection)
            .chain([&self.final_norm])
            .chain(self.head_table.as_ref().and_then(Table::parameter))
    }

    /// Room for the rows of a pass.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns `true` if the loss needs the teacher.
    pub fn has_teacher(&self) -> bool {
        self.teaches
    }

    /// Adds the gradients of `packed`'s loss, `Σ weight · loss` with the rows' losses as the recipe's [`Loss`] says, to
    /// the parameters' and returns each row's loss. Choices are ids of the vocabulary.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if there are more rows than room; as [`Device::check`](crate::gpu::GpuContext::check).
    pub fn learn(&self, packed: &PackedRows, weight: f32) -> Result<Vec<RowLoss>> {
        self.learn_reading(packed, weight, |_| true)
    }

    /// As [`Network::learn`], where only the rows for which `reads` says so read the target's states: what a draft learns
    /// that is to do without them as well.
    ///
    /// # Errors
    ///
    /// As [`Network::learn`].
    pub fn learn_reading(
        &self,
        packed: &PackedRows,
        weight: f32,
        reads: impl Fn(usize) -> bool,
    ) -> Result<Vec<RowLoss>> {
        let rows = packed.rows.len();
        if rows > self.capacity || rows == 0 {
            let reason = format!("{rows} rows in a pass that takes 1 to {}", self.capacity);
            return Err(Error::Option { option: OptionName::Rows, reason });
        }
        let reached = match &self.teacher {
            None => None,
            Some(teacher) => {
                teacher.read(packed, reads)?;
                self.loss.by_acceptance.then(|| teacher.reached(packed, |id| self.index_of(id))).transpose()?
            }
        };
        let read_ids = self.write(packed, |row| weight * reached.as_ref().map_or(1.0, |reached| reached[row]));
        Pass::submit(&self.device, None, |pass| {
            pass.section("forward");
            self.embedding.encode(pass, rows);
            match &self.projection {
                Some(projection) => projection.product.encode(pass, Phase::Prefill, rows),
                None => Ok(()),
            }
        })?;
        let asked = self.teacher.as_ref().filter(|_| self.teaches);
        for layer in &self.layers {
            Pass::submit(&self.device, None, |pass| {
                pass.section("forward");
                layer.forward(pass, rows)
            })?;
        }
        self.shared.gradients.hidden.buffer.clear(&self.device);
        for first in (0..rows).step_by(self.head.rows) {
            let count = self.head.rows.min(rows - first);
            if let Some(teacher) = asked {
                let tokens = (first..first + count).map(|row| packed.token_row(row) as u32);
                teacher.ask(&tokens.collect::<Vec<_>>(), first);
            }
            self.head.learn(&self.device, first, count, asked)?;
        }
        for (index, layer) in self.layers.iter().enumerate().rev() {
            Pass::submit(&self.device, None, |pass| {
                pass.section("backward");
                // The last layer's activations are always there.
                if !self.keeps_activations && index + 1 < self.layers.len() {
                    layer.forward(pass, rows)?;
                }
                layer.backward(pass, rows);
                Ok(())
            })?;
        }
        Pass::submit(&self.device, None, |pass| {
            pass.section("backward");
            self.embedding_gradient.encode(pass, read_ids, rows);
            if let Some(projection) = &self.projection {
                projection.gradient.encode(pass, rows);
            }
            Ok(())
        })?;
        let mut losses: Vec<RowLoss> = self.losses.read(&self.device, 0, rows)?;
        if let Some(vocabulary) = &self.vocabulary {
            for loss in &mut losses {
                loss.choice = vocabulary[loss.choice as usize];
                loss.teacher_choice = vocabulary.get(loss.teacher_choice as usize).copied().unwrap_or(Label::NONE);
            }
        }
        Ok(losses)
    }

    /// Writes the pass's inputs, with the weight of each row's loss; returns how many tokens the embedding's gradient
    /// belongs to.
    fn write(&self, packed: &PackedRows, weight: impl Fn(usize) -> f32) -> usize {
        let (device, rows) = (&self.device, packed.rows.len());
        let step = Step { rows: rows as u32, outputs: rows as u32, ..Step::default() };
        self.shared.step.write(device, 0, &[step]);
        self.shared.rows.write(device, 0, &packed.rows);
        let turn = |row: &TrainingRow| &self.angles[row.position as usize * self.head_dim..][..self.head_dim];
        let angles: Vec<f32> = packed.rows.iter().flat_map(turn).copied().collect();
        self.shared.angles.write(device, 0, &angles);
        self.ids.write(device, 0, &packed.ids);
        let label = |(row, label): (usize, &Option<u32>)| Label {
            id: label.and_then(|id| self.index_of(id)).unwrap_or(Label::NONE),
            weight: self.loss.cross_entropy * weight(row),
            // The teacher's distribution counts even if the draft cannot propose the text's token.
            divergence_weight: if label.is_some() { self.loss.divergence * weight(row) } else { 0.0 },
        };
        self.labels.write(device, 0, &packed.labels.iter().enumerate().map(label).collect::<Vec<_>>());

        let mut readers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (row, &id) in packed.ids.iter().enumerate() {
            match self.mask {
                None => readers.entry(id).or_default().push(row as u32),
                Some(_) if id == self.mask_token => readers.entry(0).or_default().push(row as u32),
                Some(_) => {}
            }
        }
        let mut firsts = vec![0];
        for rows in readers.values() {
            firsts.push(firsts[firsts.len() - 1] + rows.len() as u32);
        }
        let [ids, first_readers, reading] = &self.readers;
        ids.write(device, 0, &readers.keys().copied().collect::<Vec<_>>());
        first_readers.write(device, 0, &firsts);
        reading.write(device, 0, &readers.values().flatten().copied().collect::<Vec<_>>());
        readers.len()
    }

    /// The head's row that stands for token `id`, if it has one.
    fn index_of(&self, id: u32) -> Option<u32> {
        match &self.vocabulary {
            None => Some(id),
            Some(vocabulary) => vocabulary.binary_search(&id).ok().map(|index| index as u32),
        }
    }
}

impl Head {
    /// Rows that have logits at a time.
    fn rows(matrix: &Matrix) -> usize {
        (LOGITS / (4 * matrix.outputs())).clamp(MAX_ROWS, MAX_LOGIT_ROWS)
    }

    #[allow(clippy::too_many_arguments, reason = "each is another operand")]
    fn new(
        device: &Device,
        plan: &KernelPlan,
        table: &Table,
        final_norm: &Parameter,
        epsilon: f32,
        [top, top_gradient]: [&Tensor; 2],
        [labels, losses]: [&Buffer; 2],
        teacher: Option<&Tensor>,
    ) -> Result<Head> {
        let matrix = table.matrix();
        let rows = Head::rows(matrix);
        let step = Buffer::shared::<Step>(device, "head step")?;
        let normed = Tensor::new(device, "normed", rows, top.width)?;
        let normed_gradient = Tensor::new(device, "normed gradient", rows, top.width)?;
        let logits = Tensor::new(device, "logits", rows, matrix.outputs())?;
        let [gain, gain_gradient] = final_norm.as_vector();
        let weights = match table {
            Table::Frozen(_) => None,
            Table::Trained(parameter) => {
                Some(WeightGradient::new(device, &step, matrix, [&normed, &logits], parameter.as_matrix().1)?)
            }
        };
        Ok(Head {
            norm: RmsNorm::new(device, &step, [top, &normed], gain, epsilon, RowRange::Outputs)?,
            product: Matmul::new(device, plan, &step, matrix, [&normed, &logits], Epilogue::Store, RowRange::All)?,
            loss: CrossEntropy::new(device, &step, &logits, teacher, labels, losses)?,
            weights,
            input: InputGradient::new(
                device,
                &step,
                matrix,
                [&logits, &normed_gradient],
                Accumulate::Store,
                RowRange::All,
            )?,
            norm_gradient: RmsNormGradient::new(
                device,
                &step,
                top,
                gain,
                epsilon,
                [&normed_gradient, top_gradient],
                gain_gradient,
                RowRange::Outputs,
            )?,
            rows,
            step,
        })
    }

    /// The loss of `rows` rows from `first` on, and its gradient.
    fn learn(&self, device: &Device, first: usize, rows: usize, teacher: Option<&Teacher>) -> Result<()> {
        let count = rows as u32;
        self.step.write(
            device,
            0,
            &[Step { rows: count, first_output: first as u32, outputs: count, ..Step::default() }],
        );
        Pass::submit(device, None, |pass| {
            if let Some(teacher) = teacher {
                pass.section("teacher");
                teacher.encode(pass, rows)?;
            }
            pass.section("loss");
            self.norm.encode(pass, rows);
            self.product.encode(pass, Phase::Prefill, rows)?;
            self.loss.encode(pass, rows);
            if let Some(weights) = &self.weights {
                weights.encode(pass, rows);
            }
            self.input.encode(pass, rows);
            self.norm_gradient.encode(pass, rows);
            Ok(())
        })
    }
}

/// The rows `ids` of the matrix `name`, in BF16 as they are run.
fn sample_rows(
    device: &Device,
    plan: &KernelPlan,
    checkpoint: &dyn Checkpoint,
    name: &str,
    ids: &[u32],
    columns: usize,
) -> Result<Matrix> {
    let read = |rows: std::ops::Range<usize>, out: &mut [f32]| {
        for (row, out) in rows.zip(out.chunks_exact_mut(columns)) {
            let id = ids[row] as usize;
            checkpoint.read_rows(name, id..id + 1, out)?;
        }
        Ok(())
    };
    Matrix::upload(device, plan, name, WeightFormat::Bf16, [ids.len(), columns], &read)
}

/// The mean of a table's rows: where a token that was never seen begins.
fn mean_row(checkpoint: &dyn Checkpoint, name: &str, [rows, columns]: [usize; 2]) -> Result<Vec<f32>> {
    let mut sums = vec![0.0f64; columns];
    let mut row = vec![0.0; columns];
    for index in 0..rows {
        checkpoint.read_rows(name, index..index + 1, &mut row)?;
        for (sum, &value) in sums.iter_mut().zip(&row) {
            *sum += f64::from(value);
        }
    }
    Ok(sums.into_iter().map(|sum| (sum / rows as f64) as f32).collect())
}
