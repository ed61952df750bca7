//! Llama 2 and 3, SmolLM2.

use super::{Definition, Windows};

pub(super) const DEFINITION: Definition = Definition {
    model_type: "llama",
    architecture: "llama",
    class: "LlamaForCausalLM",
    qkv_bias: false,
    head_norm: false,
    head_dim: None,
    honours_attention_bias: true,
    windows: Windows::None,
    is_reordered_in_gguf: true,
    has_experts: false,
};
