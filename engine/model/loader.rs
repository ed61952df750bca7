//! From a checkpoint's tensors to a model's matrices on the device.

use std::ops::Range;
use std::sync::Arc;

use super::checkpoint::{Checkpoint, StoredType, TensorInfo};
use super::config::Config;
use super::shared::Shared;
use super::transformer::{LayerWeights, Progress, Transformer, expected_matrices};
use super::weight_choice::{self, WeightChoice};
use crate::error::{Error, Result};
use crate::gpu::{Device, Plan};
use crate::ops::{Matrix, Section, Source, Tensor, WeightFormat};

/// Uploads one checkpoint's weights.
pub(super) struct Loader<'a> {
    device: &'a Device,
    plan: &'a Plan,
    checkpoint: &'a dyn Checkpoint,
    choice: WeightChoice,
    progress: &'a Progress<'a>,
    total: u64,
    done: u64,
    notices: Vec<String>,
}

impl<'a> Loader<'a> {
    /// Checks every matrix's name and shape before anything is uploaded.
    pub fn new(
        device: &'a Device,
        plan: &'a Plan,
        config: &Config,
        checkpoint: &'a dyn Checkpoint,
        choice: WeightChoice,
        progress: &'a Progress<'a>,
    ) -> Result<Loader<'a>> {
        let total = expected_matrices(config).iter().try_fold(0, |sum, (name, shape)| {
            checkpoint.expect(name, shape)?;
            Ok::<_, Error>(sum + (shape[0] * shape[1]) as u64)
        })?;
        Ok(Loader { device, plan, checkpoint, choice, progress, total, done: 0, notices: Vec::new() })
    }

    /// Uploads the layers between `embedding` and `head`.
    pub fn finish(
        mut self,
        config: &Config,
        embedding: Arc<Matrix>,
        head: Option<Arc<Matrix>>,
        shared: Option<Shared>,
    ) -> Result<Transformer> {
        let layers = (0..config.layers).map(|layer| self.layer(config, layer)).collect::<Result<_>>()?;
        let final_norm = self.vector(&["model.norm.weight"], &[config.hidden_size])?;
        let (device, plan, config) = (self.device.clone(), *self.plan, config.clone());
        Ok(Transformer { device, plan, config, embedding, layers, final_norm, head, shared, notices: self.notices })
    }

    /// The weights of layer `layer`.
    fn layer(&mut self, config: &Config, layer: usize) -> Result<LayerWeights> {
        let [hidden, ffn] = [config.hidden_size, config.feed_forward_size];
        let [queries, keys] = [config.query_size(), config.key_value_size()];
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let qkv = |kind| ["q", "k", "v"].map(|part| name(&format!("self_attn.{part}_proj.{kind}")));
        let qkv_bias = config.qkv_bias.then(|| self.vector(&qkv("bias"), &[queries, keys, keys])).transpose()?;
        let gain = |loader: &Self, part, width| loader.vector(&[name(part)], &[width]);
        let head_norm = match config.head_norm {
            false => None,
            true => Some([
                gain(self, "self_attn.q_norm.weight", config.head_dim)?,
                gain(self, "self_attn.k_norm.weight", config.head_dim)?,
            ]),
        };
        Ok(LayerWeights {
            attention_norm: gain(self, "input_layernorm.weight", hidden)?,
            qkv: self.matrix(&qkv("weight"), &[queries, keys, keys], hidden)?,
            qkv_bias,
            head_norm,
            output: self.matrix(&[name("self_attn.o_proj.weight")], &[hidden], queries)?,
            feed_forward_norm: gain(self, "post_attention_layernorm.weight", hidden)?,
            gate_up: self.gate_up(&[name("mlp.gate_proj.weight"), name("mlp.up_proj.weight")], ffn, hidden)?,
            down: self.matrix(&[name("mlp.down_proj.weight")], &[hidden], ffn)?,
        })
    }

    /// One row made of the vectors `names`, one after the other.
    pub fn vector<N: AsRef<str>>(&self, names: &[N], lens: &[usize]) -> Result<Tensor> {
        let mut values = Vec::new();
        for (name, &len) in names.iter().zip(lens) {
            values.extend(self.checkpoint.read_vector(name.as_ref(), len)?);
        }
        Tensor::vector(self.device, names[0].as_ref(), &values)
    }

    /// One matrix made of the tensors `names`, one below the other, `rows` high and `columns` wide, each in its own format.
    pub fn matrix<N: AsRef<str>>(&mut self, names: &[N], rows: &[usize], columns: usize) -> Result<Matrix> {
        // Neighbours of one kind are one section.
        let mut stacks: Vec<Stack> = Vec::new();
        for (name, &height) in names.iter().zip(rows) {
            let of_one = Stack::new(self.checkpoint, self.choice, name.as_ref(), height, columns)?;
            match stacks.last_mut() {
                Some(last) if last.kind() == of_one.kind() => last.tensors.extend(of_one.tensors),
                _ => stacks.push(of_one),
            }
        }
        self.note(&stacks);
        let values: Vec<_> = stacks.iter().map(|stack| |rows, out: &mut [f32]| stack.values(rows, out)).collect();
        let blocks: Vec<_> = stacks.iter().map(|stack| |rows, out: &mut [u8]| stack.blocks(rows, out)).collect();
        let sections = stacks.iter().zip(values.iter().zip(&blocks)).map(|(stack, (values, blocks))| Section {
            format: stack.format,
            rows: stack.rows(),
            source: if stack.as_stored() { Source::Stored(blocks) } else { Source::Values(values) },
        });
        let sections: Vec<Section> = sections.collect();
        let matrix = Matrix::of_sections(self.device, self.plan, names[0].as_ref(), columns, &sections)?;
        self.progressed(rows.iter().sum::<usize>() * columns);
        Ok(matrix)
    }

    /// Gate and up, `width` rows each.
    fn gate_up(&mut self, names: &[String; 2], width: usize, columns: usize) -> Result<Matrix> {
        let stack = |name| Stack::new(self.checkpoint, self.choice, name, width, columns);
        let (mut both, up) = (stack(&names[0])?, stack(&names[1])?);
        // A lane's gate and up are read alike.
        both.format = weight_choice::common(both.format, up.format);
        both.tensors.extend(up.tensors);
        self.note(std::slice::from_ref(&both));
        let values = |rows, out: &mut [f32]| both.values(rows, out);
        let blocks = |rows, out: &mut [u8]| both.blocks(rows, out);
        let source = if both.as_stored() { Source::Stored(&blocks) } else { Source::Values(&values) };
        let matrix = Matrix::of_pair(self.device, self.plan, &names[0], both.format, [width, columns], source)?;
        self.progressed(2 * width * columns);
        Ok(matrix)
    }

    fn progressed(&mut self, weights: usize) {
        self.done += weights as u64;
        (self.progress)(self.done, self.total);
    }

    /// Keeps what is to be told of tensors that change their format unasked.
    fn note(&mut self, stacks: &[Stack]) {
        for notice in stacks.iter().flat_map(|stack| stack.notices(self.choice)) {
            if !self.notices.contains(&notice) {
                self.notices.push(notice);
            }
        }
    }
}

/// Tensors one below the other, all `columns` wide, that become weights of one format.
struct Stack<'a> {
    checkpoint: &'a dyn Checkpoint,
    /// What the file says of each, and its rows.
    tensors: Vec<(&'a TensorInfo, usize)>,
    columns: usize,
    format: WeightFormat,
}

impl<'a> Stack<'a> {
    fn new(
        checkpoint: &'a dyn Checkpoint,
        choice: WeightChoice,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Stack<'a>> {
        let missing = || Error::MissingTensor { path: checkpoint.path().to_owned(), name: name.to_owned() };
        let info = checkpoint.find(name).ok_or_else(missing)?;
        Ok(Stack { checkpoint, tensors: vec![(info, rows)], columns, format: choice.format(info) })
    }

    /// Whether their bytes are taken as they are.
    fn as_stored(&self) -> bool {
        self.tensors.iter().all(|(info, _)| info.stored.blocks() == Some(self.format))
    }

    /// What neighbours must have in common.
    fn kind(&self) -> (WeightFormat, bool) {
        (self.format, self.as_stored())
    }

    fn rows(&self) -> usize {
        self.tensors.iter().map(|(_, rows)| rows).sum()
    }

    /// Reads a range of their rows, as numbers.
    fn values(&self, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.each(range, out, self.columns, |name, rows, out| self.checkpoint.read_rows(name, rows, out))
    }

    /// Reads a range of their rows, as they are stored.
    fn blocks(&self, range: Range<usize>, out: &mut [u8]) -> Result<()> {
        let width = self.format.stored_bytes(self.columns);
        self.each(range, out, width, |name, rows, out| self.checkpoint.read_blocks(name, rows, out))
    }

    /// Hands each tensor's share of a range of rows to `read`, with its place in `out`, `width` elements a row.
    fn each<T>(
        &self,
        range: Range<usize>,
        out: &mut [T],
        width: usize,
        read: impl Fn(&str, Range<usize>, &mut [T]) -> Result<()>,
    ) -> Result<()> {
        let mut first = 0;
        for &(info, height) in &self.tensors {
            let [start, end] = [range.start.max(first), range.end.min(first + height)];
            if start < end {
                let target = &mut out[(start - range.start) * width..(end - range.start) * width];
                read(&info.name, start - first..end - first, target)?;
            }
            first += height;
        }
        Ok(())
    }

    /// What to tell of tensors that are not kept as they are, though nothing else was asked for.
    fn notices(&self, choice: WeightChoice) -> Vec<String> {
        let changed = |stored: StoredType| match stored {
            StoredType::F32 if self.format != WeightFormat::F32 => {
                Some("F32 weights are rounded to BF16; --weights f32 keeps them".to_owned())
            }
            StoredType::Quantised(name) if stored.blocks() != Some(self.format) => {
                Some(format!("{name} weights are kept as {}", self.format.name().to_uppercase()))
            }
            _ => None,
        };
        let tensors = self.tensors.iter().filter(|_| choice == WeightChoice::Compact);
        tensors.filter_map(|(info, _)| changed(info.stored)).collect()
    }
}
