//! Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen. q, k and v have biases whatever `attention_bias` says.

use super::{Definition, Windows};

pub(super) const DEFINITION: Definition = Definition {
    model_type: "qwen2",
    architecture: "qwen2",
    class: "Qwen2ForCausalLM",
    qkv_bias: true,
    head_norm: false,
    head_dim: None,
    honours_attention_bias: false,
    windows: Windows::Upper,
    is_reordered_in_gguf: false,
    has_experts: false,
};
