//! Qwen3-MoE: Qwen3 whose feed-forward layers are mixtures of experts.

use super::{Definition, Windows};

pub(super) const DEFINITION: Definition = Definition {
    model_type: "qwen3_moe",
    architecture: "qwen3moe",
    class: "Qwen3MoeForCausalLM",
    qkv_bias: false,
    head_norm: true,
    head_dim: None,
    honours_attention_bias: true,
    windows: Windows::None,
    is_reordered_in_gguf: false,
    has_experts: true,
};
