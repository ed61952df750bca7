//! A model's weights on the device. They are shared by every sequence that runs on them.

use std::sync::Arc;

use super::tied_draft::{TargetEmbeddings, Vocabulary};
use crate::checkpoint::config::{Config, Experts};
use crate::error::Result;
use crate::gpu::{Device, KernelPlan};
use crate::ops::{AttentionShape, ExpertMatrix, Matrix, Mixture, Tensor};

/// Bytes at the beginning, in the middle and at the end of each buffer that [`Weights::fingerprint`] reads.
const FINGERPRINT_SAMPLE: u64 = 256;

/// A decoder's weights, and the hyper-parameters that go with them.
pub struct Weights {
    pub(super) device: Device,
    pub(super) plan: KernelPlan,
    pub(super) config: Config,
    pub(super) embedding: Arc<Matrix>,
    pub(super) layers: Vec<LayerWeights>,
    pub(crate) final_norm: Tensor,
    pub(super) head: Option<Arc<Matrix>>,
    /// Set for a draft whose embedding and head are its target's.
    pub(super) shared: Option<TargetEmbeddings>,
    /// The projection of the target's states, in a draft that reads them.
    pub(super) projection: Option<Projection>,
    pub(super) notices: Vec<String>,
}

/// Projection of a target's states to a draft's width.
pub(super) struct Projection {
    pub matrix: Matrix,
    /// The bias times the projection's factor.
    pub bias: Option<Vec<f32>>,
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
    pub feed_forward: FeedForwardWeights,
}

/// The weights of a feed-forward layer.
#[expect(clippy::large_enum_variant, reason = "a model has some dozens of them")]
pub(super) enum FeedForwardWeights {
    Dense {
        gate_up: Matrix,
        down: Matrix,
    },
    Experts {
        router: Matrix,
        /// Gates and ups, and downs.
        experts: [ExpertMatrix; 2],
    },
}

impl FeedForwardWeights {
    /// The matrices that all rows are multiplied by.
    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        match self {
            FeedForwardWeights::Dense { gate_up, down } => [Some(gate_up), Some(down)],
            FeedForwardWeights::Experts { router, .. } => [Some(router), None],
        }
        .into_iter()
        .flatten()
    }

    fn matrices_mut(&mut self) -> impl Iterator<Item = &mut Matrix> {
        match self {
            FeedForwardWeights::Dense { gate_up, down } => [Some(gate_up), Some(down)],
            FeedForwardWeights::Experts { router, .. } => [Some(router), None],
        }
        .into_iter()
        .flatten()
    }

    /// The matrices of experts.
    pub fn experts(&self) -> &[ExpertMatrix] {
        match self {
            FeedForwardWeights::Dense { .. } => &[],
            FeedForwardWeights::Experts { experts, .. } => experts,
        }
    }
}

/// Reports bytes done and bytes in all while weights are uploaded.
pub type Progress<'a> = dyn Fn(u64, u64) + 'a;

impl Weights {
    /// The device that holds the weights.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The numeric plan that the weights were laid out for.
    pub fn plan(&self) -> &KernelPlan {
        &self.plan
    }

    /// Notices about the upload, such as a change of precision.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Device memory that the weights take, without what belongs to a target.
    pub fn bytes(&self) -> u64 {
        let [embedding, head] = self.owns();
        let ends = [Some(&self.embedding).filter(|_| embedding), self.head.as_ref().filter(|_| head)];
        let matrices = self.layer_matrices().chain(ends.into_iter().flatten().map(Arc::as_ref));
        matrices.map(Matrix::bytes).chain(self.experts().map(ExpertMatrix::bytes)).sum()
    }

    /// Returns whether the embedding is its own, and whether the head is, if it is not the embedding.
    fn owns(&self) -> [bool; 2] {
        match &self.shared {
            None => [true, true],
            Some(shared) => [shared.is_copy, shared.is_copy || shared.vocabulary.is_some()],
        }
    }

    fn layer_matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.layers
            .iter()
            .flat_map(|l| [&l.qkv, &l.output].into_iter().chain(l.feed_forward.matrices()))
            .chain(self.projection.as_ref().map(|own| &own.matrix))
    }

    /// The matrices of the experts of all layers.
    pub(super) fn experts(&self) -> impl Iterator<Item = &ExpertMatrix> {
        self.layers.iter().flat_map(|layer| layer.feed_forward.experts())
    }

    /// The matrices of all rows that a pass reads, the embedding and the head included, whosever they are.
    pub(super) fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.layer_matrices().chain([self.embedding.as_ref()]).chain(self.head.as_deref())
    }

    /// A checksum of samples of every matrix, as they lie on the device. It tells models apart that have the same shapes.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub(super) fn fingerprint(&self) -> Result<u32> {
        let mut sum = crc32fast::Hasher::new();
        let matrices = self.matrices().flat_map(Matrix::buffers).chain(self.experts().flat_map(ExpertMatrix::buffers));
        for buffer in matrices.chain([&self.final_norm.buffer]) {
            let len = buffer.bytes().min(FINGERPRINT_SAMPLE);
            let last = buffer.bytes() - len;
            let middle = (last / 2).next_multiple_of(4).min(last);
            sum.update(&buffer.read_pieces(&self.device, &[(0, len), (middle, len), (last, len)])?);
        }
        Ok(sum.finalize())
    }

    /// Its own matrices; none if a draft shares some of them.
    pub(super) fn own_matrices_mut(&mut self) -> Option<Vec<&mut Matrix>> {
        let [embedding, head] = self.owns();
        let layers = self.layers.iter_mut();
        let layers = layers.flat_map(|l| [&mut l.qkv, &mut l.output].into_iter().chain(l.feed_forward.matrices_mut()));
        let projection = self.projection.as_mut().map(|own| &mut own.matrix);
        let mut matrices: Vec<&mut Matrix> = layers.chain(projection).collect();
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
        let matrices = self.layer_matrices().chain([self.head()]);
        let of_all = matrices.map(|matrix| (matrix.rows() * matrix.columns()) as u64).sum::<u64>();
        let used = self.config.experts.as_ref().map_or(0, |experts| experts.used);
        let of_one = self.experts().map(|experts| (experts.sizes().rows() * experts.sizes().columns) as u64);
        of_all + used as u64 * of_one.sum::<u64>()
    }

    pub(crate) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The head, unless it is the embedding.
    pub(super) fn own_head(&self) -> Option<&Arc<Matrix>> {
        self.head.as_ref()
    }

    /// The tokens that its head has rows for, if those are some only.
    pub(super) fn vocabulary(&self) -> Option<&Vocabulary> {
        self.shared.as_ref()?.vocabulary.as_ref()
    }

    pub(super) fn attention_shape(&self) -> AttentionShape {
        attention_shape(&self.config)
    }
}

/// The mixture that `experts` describe.
pub(super) fn mixture(experts: &Experts) -> Mixture {
    Mixture { count: experts.count, used: experts.used }
}

/// The heads that `config` describes.
pub fn attention_shape(config: &Config) -> AttentionShape {
    AttentionShape { heads: config.heads, kv_heads: config.kv_heads, head_dim: config.head_dim }
}
