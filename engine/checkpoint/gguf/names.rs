//! Tensor names: llama.cpp's, and Hugging Face's for the same thing.

/// Tensors outside the layers.
const WHOLE_MODEL: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// The parts of a layer; each may have a `weight` and a `bias`.
const LAYER: [(&str, &str); 15] = [
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
    ("ffn_gate_inp", "mlp.gate"),
    ("ffn_gate_exps", "mlp.experts.gate_proj"),
    ("ffn_up_exps", "mlp.experts.up_proj"),
    ("ffn_down_exps", "mlp.experts.down_proj"),
];

/// The parts of an expert, where each is a tensor of its own, as in older files: `blk.0.ffn_gate.5.weight`.
const EXPERT: [(&str, &str); 3] = [("ffn_gate", "gate_proj"), ("ffn_up", "up_proj"), ("ffn_down", "down_proj")];

/// Divisors of the rotary frequencies; Hugging Face has no tensor for them.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Hugging Face's name for the tensor that llama.cpp calls `name`; `name` itself where there is none.
pub(super) fn hugging_face(name: &str) -> String {
    if let Some((_, renamed)) = WHOLE_MODEL.iter().find(|(known, _)| *known == name) {
        return (*renamed).to_owned();
    }
    let renamed = |names: &[(&str, &'static str)], part: &str| {
        names.iter().find(|(known, _)| *known == part).map(|&(_, renamed)| renamed)
    };
    let new = match name.split('.').collect::<Vec<_>>()[..] {
        ["blk", layer, part, kind @ ("weight" | "bias")] => {
            renamed(&LAYER, part).map(|part| format!("model.layers.{layer}.{part}.{kind}"))
        }
        ["blk", layer, part, expert, "weight"] => {
            renamed(&EXPERT, part).map(|part| format!("model.layers.{layer}.mlp.experts.{expert}.{part}.weight"))
        }
        _ => None,
    };
    new.unwrap_or_else(|| name.to_owned())
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
