//! The models whose shapes are timed. Weights are made from a seed, so nothing is downloaded.

use std::ops::Range;
use std::path::Path;

use pard::Result;
use pard::WeightFormat;
use pard::checkpoint::config::{Config, Experts, Family, RopeScaling};
use pard::checkpoint::{Checkpoint, TensorInfo};
use pard::low_level::forward::expected_matrices;

/// Models to choose from; the first is the default.
pub const NAMES: [&str; 3] = ["smollm2", "qwen3-0.6b", "llama3-8b"];
/// A mixture of experts, for whole passes.
pub const MIXTURE: &str = "qwen3-30b-a3b";

/// The hyper-parameters of the model called `name`.
pub fn shape(name: &str) -> Option<Config> {
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
    match name {
        "smollm2" => Some(smollm2),
        "qwen3-0.6b" => Some(Config {
            family: Family::Qwen3,
            hidden_size: 1024,
            layers: 28,
            heads: 16,
            kv_heads: 8,
            head_dim: 128,
            feed_forward_size: 3072,
            vocab_size: 151936,
            head_norm: true,
            ..smollm2
        }),
        "llama3-8b" => Some(Config {
            hidden_size: 4096,
            layers: 32,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            feed_forward_size: 14336,
            vocab_size: 128256,
            tied_head: false,
            ..smollm2
        }),
        // Two layers and few tokens: 2.5 GB of its 61.
        MIXTURE => Some(Config {
            family: Family::Qwen3Moe,
            hidden_size: 2048,
            layers: 2,
            heads: 32,
            kv_heads: 4,
            head_dim: 128,
            experts: Some(Experts {
                count: 128,
                used: 8,
                feed_forward_size: 768,
                normalised: true,
                layers: vec![true; 2],
            }),
            vocab_size: 8192,
            head_norm: true,
            ..smollm2
        }),
        _ => None,
    }
}

/// Tensors whose values are hashed from their place.
pub struct RandomWeights {
    infos: Vec<TensorInfo>,
}

impl RandomWeights {
    /// Every tensor of a model that `config` describes.
    pub fn new(config: &Config) -> RandomWeights {
        let mut shapes: Vec<(String, Vec<usize>)> =
            expected_matrices(config).into_iter().map(|(name, shape)| (name, shape.to_vec())).collect();
        shapes.push(("model.norm.weight".to_owned(), vec![config.hidden_size]));
        for layer in 0..config.layers {
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                shapes.push((format!("model.layers.{layer}.{norm}.weight"), vec![config.hidden_size]));
            }
            for norm in ["q_norm", "k_norm"].iter().filter(|_| config.head_norm) {
                shapes.push((format!("model.layers.{layer}.self_attn.{norm}.weight"), vec![config.head_dim]));
            }
        }
        shapes.sort();
        let info = |(name, shape): (String, Vec<usize>)| {
            let bytes = 2 * shape.iter().product::<usize>() as u64;
            TensorInfo { name, shape, stored: WeightFormat::Bf16, bytes }
        };
        RandomWeights { infos: shapes.into_iter().map(info).collect() }
    }
}

impl Checkpoint for RandomWeights {
    fn path(&self) -> &Path {
        Path::new("random weights")
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let mut state =
            name.bytes().fold(rows.start as u64 + 1, |hash, byte| (hash ^ u64::from(byte)) * 0x100_0000_01b3);
        for value in out {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *value = ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.1;
        }
        Ok(())
    }
}
