//! Mistral. It has no biases whatever `attention_bias` says. GGUF calls it `llama`: one with a window is a Mistral.

use super::{Definition, Windows};

pub(super) const DEFINITION: Definition = Definition {
    model_type: "mistral",
    architecture: "mistral",
    class: "MistralForCausalLM",
    qkv_bias: false,
    head_norm: false,
    head_dim: None,
    honours_attention_bias: false,
    windows: Windows::All,
    is_reordered_in_gguf: true,
    has_experts: false,
};
