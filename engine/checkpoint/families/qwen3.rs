//! Qwen3, dense. Its heads may be wider than hidden size / heads.

use super::{Definition, Windows};

pub(super) const DEFINITION: Definition = Definition {
    model_type: "qwen3",
    architecture: "qwen3",
    class: "Qwen3ForCausalLM",
    qkv_bias: false,
    head_norm: true,
    head_dim: Some(128),
    honours_attention_bias: true,
    windows: Windows::Upper,
    is_reordered_in_gguf: false,
    has_experts: false,
};
