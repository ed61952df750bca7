//! Models of known shapes with made-up weights, for measurements on a machine that holds no model: their results mean
//! nothing, but a pass takes as long as one over the real model.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::memory_plan::MemoryPlan;
use super::tensor_map::{LayerMap, expected_matrices};
use super::weight_dtype::WeightDtype;
use super::weights::Weights;
use crate::checkpoint::config::{Config, Experts, Family, RopeScaling};
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::{Error, Result};
use crate::gpu::{Device, KernelPlan};
use crate::ops::WeightFormat;

/// Minimum size of the distinct layers in bytes, unless the model is smaller; they take turns in place of all layers.
/// Many times what the caches of known devices hold.
const DISTINCT_BYTES: u64 = 1 << 30;
/// Layers and vocabulary on an adapter that computes on the CPU, where whole models take too long.
const SOFTWARE_LAYERS: usize = 2;
const SOFTWARE_VOCABULARY: usize = 8192;
/// Numbers that all rows are taken from, each row from another place on. A multiple of every format's block.
const POOL: usize = 1 << 16;

/// A model's name and hyper-parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// The model's name.
    pub name: &'static str,
    /// Its hyper-parameters. The head is the embedding in all of them: a pass reads as much either way.
    pub config: Config,
}

impl Shape {
    /// SmolLM2-135M, Qwen3-0.6B, Qwen3-8B, Llama-3.1-8B and Qwen3-30B-A3B.
    pub fn all() -> [Shape; 5] {
        let smollm2 = Config {
            family: Family::Llama,
            hidden_size: 576,
            layers: 30,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            feed_forward_size: 1536,
            experts: None,
            vocab_size: 49152,
            norm_epsilon: 1e-5,
            rope_theta: 1e5,
            rope_scaling: RopeScaling::None,
            rope_factors: vec![],
            sliding_window: None,
            tied_head: true,
            qkv_bias: false,
            head_norm: false,
            context: 8192,
            mask_token: None,
            shared_embeddings: false,
            target_layers: None,
        };
        let qwen3 = Config {
            family: Family::Qwen3,
            hidden_size: 1024,
            layers: 28,
            heads: 16,
            kv_heads: 8,
            head_dim: 128,
            feed_forward_size: 3072,
            experts: None,
            vocab_size: 151936,
            norm_epsilon: 1e-6,
            rope_theta: 1e6,
            head_norm: true,
            context: 40960,
            ..smollm2.clone()
        };
        let qwen3_8b = Config { hidden_size: 4096, layers: 36, heads: 32, feed_forward_size: 12288, ..qwen3.clone() };
        let rope_scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192.0 };
        let llama = Config {
            hidden_size: 4096,
            layers: 32,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            feed_forward_size: 14336,
            vocab_size: 128256,
            rope_theta: 5e5,
            rope_scaling,
            context: 131072,
            ..smollm2.clone()
        };
        let experts = Experts { count: 128, used: 8, feed_forward_size: 768, normalised: true, layers: vec![true; 48] };
        let mixture = Config {
            family: Family::Qwen3Moe,
            hidden_size: 2048,
            layers: 48,
            heads: 32,
            kv_heads: 4,
            experts: Some(experts),
            ..qwen3.clone()
        };
        [
            ("SmolLM2-135M", smollm2),
            ("Qwen3-0.6B", qwen3),
            ("Qwen3-8B", qwen3_8b),
            ("Llama-3.1-8B", llama),
            ("Qwen3-30B-A3B", mixture),
        ]
        .map(|(name, config)| Shape { name, config })
    }

    /// The same, of few layers and a small vocabulary where `device` computes on the CPU.
    pub fn for_device(self, device: &Device) -> Shape {
        if !device.is_software() {
            return self;
        }
        let Config { layers, vocab_size, .. } = self.config;
        let (layers, vocab_size) = (layers.min(SOFTWARE_LAYERS), vocab_size.min(SOFTWARE_VOCABULARY));
        Shape { config: Config { layers, vocab_size, ..self.config }, ..self }
    }
}

/// A model with made-up weights on a device.
pub struct MadeModel {
    /// The weights. It passes through as many layers as the shape has.
    pub weights: Arc<Weights>,
    /// The number of distinct layers; they take turns.
    pub distinct_layers: usize,
    /// Bytes of weights that a pass reads.
    pub pass_bytes: u64,
    /// The formats of the weights that a pass reads, with the weights of each; most weights first.
    pub formats: Vec<(WeightFormat, u64)>,
    /// Seconds taken to make and upload the weights.
    pub seconds: f64,
}

impl MadeModel {
    /// Makes a model of `shape` with matrices in `format`, or in the closest one to it for rows that its blocks do not
    /// fit; the embedding of a K-quantised one is kept in 6 bits, as in published files. `positions` is the context of
    /// a sequence on it.
    ///
    /// # Errors
    ///
    /// [`Error::DoesNotFit`] before anything is uploaded; those of [`Weights::upload`].
    pub fn new(
        device: &Device,
        plan: &KernelPlan,
        shape: &Shape,
        format: WeightFormat,
        positions: usize,
    ) -> Result<MadeModel> {
        let begin = Instant::now();
        let made = MadeWeights::new(&shape.config, format);
        let whole = MemoryPlan::new(&shape.config, &made, WeightDtype::Compact, None)?;
        let layers = whole.sample_layers(plan, DISTINCT_BYTES);
        let some = shape.config.of_layers(&layers);
        let some_made = MadeWeights::new(&some, format);
        let blueprint = MemoryPlan::new(&some, &some_made, WeightDtype::Compact, None)?;
        let hint = "this shape is left out; a card with more memory has room for it";
        blueprint.need(device, plan, positions).check(device, None, hint)?;
        let mut weights = Weights::upload(device, plan, &some, &some_made, WeightDtype::Compact, &|_, _| ())?;
        weights.config.layers = shape.config.layers;
        device.wait()?;
        Ok(MadeModel {
            weights: Arc::new(weights),
            distinct_layers: layers.len(),
            pass_bytes: whole.pass_bytes(plan, None),
            formats: whole.formats(),
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// Multiplications that a row takes in the layers, attention and the head aside.
    pub fn multiplications_per_row(&self) -> u64 {
        let config = &self.weights.config;
        config.layers as u64 * LayerMap::new(config, 0).multiplications()
    }
}

/// A checkpoint whose rows are taken from one pool of numbers, so that making them costs a copy.
pub struct MadeWeights {
    tensors: Vec<TensorInfo>,
    values: Vec<f32>,
    /// The pool in each of the formats there are.
    blocks: Vec<(WeightFormat, Vec<u8>)>,
}

impl MadeWeights {
    /// All tensors of `config`, whose matrices are kept in `format`; that of floats is BF16.
    pub fn new(config: &Config, format: WeightFormat) -> MadeWeights {
        let stored = |name: &str, columns: usize| -> WeightFormat {
            let is_end = name == "model.embed_tokens.weight" || name == "lm_head.weight";
            let wanted = match format {
                WeightFormat::Q4K if is_end => [WeightFormat::Q6K, WeightFormat::Q8_0],
                WeightFormat::Q4K => [WeightFormat::Q4K, WeightFormat::Q4_1],
                other => [other, other],
            };
            let fits = |format: &WeightFormat| format.is_quantised() && columns.is_multiple_of(format.block_len());
            let fitting = wanted.into_iter().find(fits);
            fitting.unwrap_or(WeightFormat::Bf16)
        };
        let mut shapes = expected_matrices(config);
        shapes.push(("model.norm.weight".to_owned(), vec![config.hidden_size]));
        for layer in 0..config.layers {
            let mut vector = |part: &str, len: usize| {
                shapes.push((format!("model.layers.{layer}.{part}.weight"), vec![len]));
            };
            vector("input_layernorm", config.hidden_size);
            vector("post_attention_layernorm", config.hidden_size);
            if config.head_norm {
                vector("self_attn.q_norm", config.head_dim);
                vector("self_attn.k_norm", config.head_dim);
            }
        }
        shapes.sort();
        let info = |(name, shape): (String, Vec<usize>)| {
            let stored = match shape[..] {
                [_, columns] => stored(&name, columns),
                _ => WeightFormat::Bf16,
            };
            let weights = shape.iter().product();
            let bytes = stored.stored_bytes(weights) as u64;
            TensorInfo { name, shape, stored, bytes }
        };
        let tensors: Vec<TensorInfo> = shapes.into_iter().map(info).collect();
        // Uniform numbers of deviation 1/sqrt(hidden) leave activations near 1.
        let scale = (12.0 / config.hidden_size as f32).sqrt();
        let mut random = fastrand::Rng::with_seed(1);
        let values: Vec<f32> = (0..POOL).map(|_| (random.f32() - 0.5) * scale).collect();
        let mut blocks: Vec<(WeightFormat, Vec<u8>)> = Vec::new();
        for format in tensors.iter().map(|tensor| tensor.stored).filter(|format| format.is_quantised()) {
            if !blocks.iter().any(|(known, _)| *known == format) {
                let mut bytes = vec![0; format.stored_bytes(POOL)];
                format.store(&values, &mut bytes);
                blocks.push((format, bytes));
            }
        }
        MadeWeights { tensors, values, blocks }
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        let missing = || Error::MissingTensor { path: self.path().to_owned(), name: name.to_owned() };
        self.find(name).ok_or_else(missing)
    }
}

/// Fills `out`, rows of `width` elements from row `first` on, from `pool`: each begins another `step` elements on.
fn fill<T: Copy>(pool: &[T], first: usize, width: usize, step: usize, out: &mut [T]) {
    for (index, row) in out.chunks_mut(width).enumerate() {
        // An odd number of steps between rows: the places differ for as many rows as there are.
        let mut at = (first + index) * 37 * step % pool.len();
        let mut rest = row;
        while !rest.is_empty() {
            let some = rest.len().min(pool.len() - at);
            let (now, later) = rest.split_at_mut(some);
            now.copy_from_slice(&pool[at..at + some]);
            (rest, at) = (later, 0);
        }
    }
}

impl Checkpoint for MadeWeights {
    fn path(&self) -> &Path {
        Path::new("made-up weights")
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        match self.info(name)?.shape[..] {
            [_, columns] => fill(&self.values, rows.start, columns, 8, out),
            _ => out.fill(1.0),
        }
        Ok(())
    }

    fn read_blocks(&self, name: &str, rows: Range<usize>, out: &mut [u8]) -> Result<()> {
        let info = self.info(name)?;
        let pool = self.blocks.iter().find(|(known, _)| *known == info.stored);
        let (Some((format, pool)), [_, columns]) = (pool, &info.shape[..]) else {
            let (path, name) = (self.path().to_owned(), name.to_owned());
            return Err(Error::TensorType {
                path,
                name,
                got: "floats".to_owned(),
                supported: "quantised blocks".to_owned(),
            });
        };
        let block = format.stored_bytes(format.block_len());
        fill(pool, rows.start, format.stored_bytes(*columns), block, out);
        Ok(())
    }
}
