//! Tensor names: llama.cpp's, and Hugging Face's for the same thing.

/// Tensors outside the layers.
const WHOLE_MODEL: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// The parts of a layer; each may have a `weight` and a `bias`.
const LAYER: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Divisors of the rotary frequencies; Hugging Face has no tensor for them.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Hugging Face's name for the tensor that llama.cpp calls `name`; `name` itself where there is none.
pub(super) fn hugging_face(name: &str) -> String {
    if let Some((_, renamed)) = WHOLE_MODEL.iter().find(|(known, _)| *known == name) {
        return (*renamed).to_owned();
    }
    let mut parts = name.split('.');
    if let (Some("blk"), Some(layer), Some(part), Some(kind @ ("weight" | "bias")), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        && let Some((_, renamed)) = LAYER.iter().find(|(known, _)| *known == part)
    {
        return format!("model.layers.{layer}.{renamed}.{kind}");
    }
    name.to_owned()
}

/// Returns the projection if `name` is llama.cpp's name for a layer's queries or keys.
pub(super) fn rotated(name: &str) -> Option<Rotated> {
    let part = name.strip_prefix("blk.")?.split_once('.')?.1;
    match part {
        "attn_q.weight" | "attn_q.bias" => Some(Rotated::Query),
        "attn_k.weight" | "attn_k.bias" => Some(Rotated::Key),
        _ => None,
    }
}

/// A projection whose result RoPE rotates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rotated {
    Query,
    Key,
}
