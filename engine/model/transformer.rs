//! A model's weights on the device. They are shared by every sequence that runs on them.

use std::ops::Range;
use std::sync::Arc;

use super::checkpoint::{Checkpoint, StoredType};
use super::config::Config;
use super::shared::{self, MASK_EMBEDDING, Shared};
use crate::error::{Error, Result};
use crate::gpu::{Device, Plan};
use crate::ops::{AttentionShape, Matrix, MatrixSource, Tensor, WeightFormat, check_products};

/// How F32 checkpoints are kept on the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WeightChoice {
    /// As stored where that is 16 bits; quantised and F32 tensors become BF16.
    #[default]
    Compact,
    /// All in F32.
    F32,
}

/// A decoder's weights, and the hyper-parameters that go with them.
pub struct Transformer {
    pub(super) device: Device,
    pub(super) plan: Plan,
    pub(super) config: Config,
    pub(super) embedding: Arc<Matrix>,
    pub(super) layers: Vec<LayerWeights>,
    pub(crate) final_norm: Tensor,
    head: Option<Arc<Matrix>>,
    /// What a draft has whose embedding and head are its target's.
    pub(super) shared: Option<Shared>,
    notices: Vec<String>,
}

/// One layer. Matrices that read the same rows are one matrix: q, k and v; gate and up.
pub(super) struct LayerWeights {
    pub attention_norm: Tensor,
    pub qkv: Matrix,
    pub qkv_bias: Option<Tensor>,
    /// Gains for q and k.
    pub head_norm: Option<[Tensor; 2]>,
    pub output: Matrix,
    pub feed_forward_norm: Tensor,
    pub gate_up: Matrix,
    pub down: Matrix,
}

/// Reports bytes done and bytes in all while weights are uploaded.
pub type Progress<'a> = dyn Fn(u64, u64) + 'a;

impl Transformer {
    /// Uploads the weights of `checkpoint`, which must be those that `config` describes.
    ///
    /// **Errors**: [`Error::NoEmbeddings`] for a draft that needs its target's; [`Error::MissingTensor`] or
    /// [`Error::TensorShape`] before anything is uploaded; [`Error::Gpu`] if the plan's matrix units fail their check;
    /// [`Error::OutOfMemory`], [`Error::Limit`].
    pub fn upload(
        device: &Device,
        plan: &Plan,
        config: &Config,
        checkpoint: &dyn Checkpoint,
        choice: WeightChoice,
        progress: &Progress,
    ) -> Result<Transformer> {
        config.check(checkpoint.path())?;
        if config.shared_embeddings {
            return Err(Error::NoEmbeddings { path: checkpoint.path().to_owned() });
        }
        let mut loader = Loader::new(device, plan, config, checkpoint, choice, progress)?;
        check_products(device, plan)?;
        let hidden = config.hidden_size;
        let embedding = loader.matrix(&["model.embed_tokens.weight"], &[config.vocab_size], hidden)?;
        let head = match config.tied_head {
            true => None,
            false => Some(Arc::new(loader.matrix(&["lm_head.weight"], &[config.vocab_size], hidden)?)),
        };
        loader.finish(config, Arc::new(embedding), head, None)
    }

    /// Device memory that the weights of `checkpoint` will take, the padding of the device's layout aside, and without what
    /// a draft shares with its target. It takes no device to know.
    ///
    /// **Errors**: [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::Damaged`], as an upload would.
    pub fn expected_bytes(config: &Config, checkpoint: &dyn Checkpoint, choice: WeightChoice) -> Result<u64> {
        let mut bytes = 0;
        if config.shared_embeddings {
            checkpoint.expect(MASK_EMBEDDING, &[config.hidden_size])?;
            // Rows of the target's head, which is kept in 16 bits unless all is in F32.
            let width = format(choice, StoredType::Bf16).bytes();
            let head_rows = shared::vocabulary(config, checkpoint)?.map_or(0, |ids| ids.len());
            bytes += (head_rows * config.hidden_size * width) as u64;
        }
        expected_matrices(config).iter().try_fold(bytes, |sum, (name, shape)| {
            let format = format(choice, checkpoint.expect(name, shape)?.stored);
            Ok(sum + (shape[0] * shape[1] * format.bytes()) as u64)
        })
    }

    /// The device that holds the weights.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The numeric plan that the weights were laid out for.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What a user may want to know of the upload, such as a change of precision.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Device memory that the weights take, without what belongs to a target.
    pub fn bytes(&self) -> u64 {
        let [embedding, head] = self.owns();
        let ends = [Some(&self.embedding).filter(|_| embedding), self.head.as_ref().filter(|_| head)];
        self.layer_matrices().chain(ends.into_iter().flatten().map(Arc::as_ref)).map(Matrix::bytes).sum()
    }

    /// Whether the embedding is its own, and whether the head, if there is one beside the embedding.
    fn owns(&self) -> [bool; 2] {
        match &self.shared {
            None => [true, true],
            Some(shared) => [false, shared.vocabulary.is_some()],
        }
    }

    fn layer_matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.layers.iter().flat_map(|l| [&l.qkv, &l.output, &l.gate_up, &l.down])
    }

    /// All matrices that a pass reads, the embedding and the head included, whosever they are.
    pub(super) fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.layer_matrices().chain([self.embedding.as_ref()]).chain(self.head.as_deref())
    }

    /// Its own matrices; none if a draft shares some of them.
    pub(super) fn own_matrices_mut(&mut self) -> Option<Vec<&mut Matrix>> {
        let [embedding, head] = self.owns();
        let layers = self.layers.iter_mut().flat_map(|l| [&mut l.qkv, &mut l.output, &mut l.gate_up, &mut l.down]);
        let mut matrices: Vec<&mut Matrix> = layers.collect();
        if embedding {
            matrices.push(Arc::get_mut(&mut self.embedding)?);
        }
        if let Some(own) = self.head.as_mut().filter(|_| head) {
            matrices.push(Arc::get_mut(own)?);
        }
        Some(matrices)
    }

    /// Multiplications that one row costs outside attention.
    pub(super) fn multiplications_per_row(&self) -> u64 {
        self.layer_matrices().chain([self.head()]).map(|matrix| (matrix.rows() * matrix.columns()) as u64).sum()
    }

    pub(crate) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The head, unless it is the embedding.
    pub(super) fn own_head(&self) -> Option<&Arc<Matrix>> {
        self.head.as_ref()
    }

    pub(super) fn attention_shape(&self) -> AttentionShape {
        attention_shape(&self.config)
    }
}

/// The heads that `config` describes.
pub fn attention_shape(config: &Config) -> AttentionShape {
    AttentionShape { heads: config.heads, kv_heads: config.kv_heads, head_dim: config.head_dim }
}

/// The matrices that `config` asks for, with their shapes: a model is checked as a whole before any upload.
pub fn expected_matrices(config: &Config) -> Vec<(String, [usize; 2])> {
    let hidden = config.hidden_size;
    let [queries, keys, ffn] = [config.query_size(), config.key_value_size(), config.feed_forward_size];
    let mut expected = Vec::new();
    if !config.shared_embeddings {
        expected.push(("model.embed_tokens.weight".to_owned(), [config.vocab_size, hidden]));
    }
    if !config.shared_embeddings && !config.tied_head {
        expected.push(("lm_head.weight".to_owned(), [config.vocab_size, hidden]));
    }
    for layer in 0..config.layers {
        for (part, shape) in [
            ("self_attn.q_proj", [queries, hidden]),
            ("self_attn.k_proj", [keys, hidden]),
            ("self_attn.v_proj", [keys, hidden]),
            ("self_attn.o_proj", [hidden, queries]),
            ("mlp.gate_proj", [ffn, hidden]),
            ("mlp.up_proj", [ffn, hidden]),
            ("mlp.down_proj", [hidden, ffn]),
        ] {
            expected.push((format!("model.layers.{layer}.{part}.weight"), shape));
        }
    }
    expected
}

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

    /// One matrix made of the tensors `names`, one below the other, `rows` high and `columns` wide.
    fn matrix<N: AsRef<str>>(&mut self, names: &[N], rows: &[usize], columns: usize) -> Result<Matrix> {
        let total: usize = rows.iter().sum();
        self.upload(names, rows, columns, |format, read| {
            Matrix::upload(self.device, self.plan, names[0].as_ref(), format, [total, columns], read)
        })
    }

    /// Gate and up, `width` rows each.
    fn gate_up(&mut self, names: &[String; 2], width: usize, columns: usize) -> Result<Matrix> {
        self.upload(names, &[width; 2], columns, |format, read| {
            Matrix::upload_pair(self.device, self.plan, &names[0], format, [width, columns], read)
        })
    }

    fn upload<N: AsRef<str>>(
        &mut self,
        names: &[N],
        rows: &[usize],
        columns: usize,
        upload: impl FnOnce(WeightFormat, &MatrixSource) -> Result<Matrix>,
    ) -> Result<Matrix> {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let format = self.format(&names)?;
        let checkpoint = self.checkpoint;
        let read = |range: Range<usize>, out: &mut [f32]| {
            let mut first = 0;
            for (name, &height) in names.iter().zip(rows) {
                let [start, end] = [range.start.max(first), range.end.min(first + height)];
                if start < end {
                    let target = &mut out[(start - range.start) * columns..(end - range.start) * columns];
                    checkpoint.read_rows(name, start - first..end - first, target)?;
                }
                first += height;
            }
            Ok(())
        };
        let matrix = upload(format, &read)?;
        self.done += (rows.iter().sum::<usize>() * columns) as u64;
        (self.progress)(self.done, self.total);
        Ok(matrix)
    }

    /// The format that keeps every one of `names` as exactly as the choice allows.
    fn format(&mut self, names: &[&str]) -> Result<WeightFormat> {
        let mut formats = Vec::new();
        for name in names {
            let info = self.checkpoint.find(name).ok_or_else(|| Error::MissingTensor {
                path: self.checkpoint.path().to_owned(),
                name: (*name).to_owned(),
            })?;
            let format = format(self.choice, info.stored);
            let notice = "F32 weights are rounded to BF16; --weights f32 keeps them".to_owned();
            if info.stored == StoredType::F32 && format != WeightFormat::F32 && !self.notices.contains(&notice) {
                self.notices.push(notice);
            }
            formats.push(format);
        }
        // Only F32 holds BF16 and F16 values both.
        Ok(if formats.windows(2).all(|pair| pair[0] == pair[1]) { formats[0] } else { WeightFormat::F32 })
    }
}

/// The format that keeps a tensor of type `stored` as exactly as the choice allows.
fn format(choice: WeightChoice, stored: StoredType) -> WeightFormat {
    match (choice, stored) {
        (WeightChoice::F32, _) => WeightFormat::F32,
        (WeightChoice::Compact, StoredType::F16) => WeightFormat::F16,
        (WeightChoice::Compact, StoredType::Bf16 | StoredType::Quantised(_) | StoredType::F32) => WeightFormat::Bf16,
    }
}
