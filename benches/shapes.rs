//! The models whose shapes are timed. Weights are made from a seed, so nothing is downloaded.

use pard_engine::model::config::{Config, Family, RopeScaling};

/// What can be asked for; the first is the default.
pub const NAMES: [&str; 3] = ["smollm2", "qwen3-0.6b", "llama3-8b"];

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
        vocab_size: 49152,
        norm_epsilon: 1e-5,
        rope_theta: 1e5,
        rope_scaling: RopeScaling::None,
        rope_factors: vec![],
        tied_head: true,
        qkv_bias: false,
        head_norm: false,
        context: 8192,
        mask_token: None,
        shared_embeddings: false,
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
        _ => None,
    }
}
