//! The whole forward pass in f64, chained from the other oracles without rounding between them.

use pard::checkpoint::config::{Config, Experts};

use super::Expected;
use super::attention::{AttentionShape, windowed_attention};
use super::embedding::embedding;
use super::experts::{expert_sum, route};
use super::matmul::matmul;
use super::rms_norm::rms_norm;
use super::rope::{HeadNorm, rope};
use super::rotary_table::{RotaryTable, rotary_table};
use super::swiglu::swiglu;
use crate::support::tiny_model::Tensors;

/// The logits after each of `tokens`.
///
///   h = embedding;  per layer:
///   n = RMSNorm(h);  h += Wₒ · Attention(RoPE(W_q·n + b), RoPE(W_k·n + b), W_v·n + b)
///   n = RMSNorm(h);  h += W_down · (SiLU(W_gate·n) ⊙ (W_up·n)), or the sum of this of a row's experts by their shares
///   logits = W_head · RMSNorm(h)
///
/// **Shapes**: the result `[rows][vocab]`.
pub fn logits(config: &Config, tensors: &Tensors, tokens: &[u32]) -> Vec<Vec<f64>> {
    let eps = config.norm_epsilon as f32;
    let table =
        rotary_table(config.rope_theta, &config.rope_scaling, &config.rope_factors, config.head_dim, tokens.len());
    let weight = |name: &str| tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}")).values.as_slice();
    let embedding_table = weight("model.embed_tokens.weight");
    let mut hidden = embedding(embedding_table, config.hidden_size, tokens).values;
    for layer in 0..config.layers {
        let weights = LayerWeights { tensors, layer };
        let normed = rms_norm(&hidden, weights.get("input_layernorm.weight"), eps).values;
        let attended = attend(config, &weights, &table, &normed);
        let output = weights.get("self_attn.o_proj.weight");
        hidden = matmul(&attended, output, config.query_size(), None, Some(&hidden)).values;

        let normed = rms_norm(&hidden, weights.get("post_attention_layernorm.weight"), eps).values;
        hidden = match config.experts_of(layer) {
            None => {
                let residual = feed_forward(&weights, "mlp", config.feed_forward_size, &normed);
                hidden.iter().zip(residual).map(|(hidden, more)| hidden + more).collect()
            }
            Some(experts) => mix(experts, &weights, &normed, &hidden),
        };
    }
    let normed = rms_norm(&hidden, weight("model.norm.weight"), eps).values;
    let head = if config.tied_head { embedding_table } else { weight("lm_head.weight") };
    let logits = matmul(&normed, head, config.hidden_size, None, None).values;
    logits.chunks_exact(config.vocab_size).map(<[f64]>::to_vec).collect()
}

struct LayerWeights<'a> {
    tensors: &'a Tensors,
    layer: usize,
}

impl<'a> LayerWeights<'a> {
    fn get(&self, part: &str) -> &'a [f32] {
        self.find(part).unwrap_or_else(|| panic!("no tensor {part} in layer {}", self.layer))
    }

    fn find(&self, part: &str) -> Option<&'a [f32]> {
        self.tensors.get(&format!("model.layers.{}.{part}", self.layer)).map(|stored| stored.values.as_slice())
    }
}

/// `W_down · (SiLU(W_gate·x) ⊙ (W_up·x))` by the tensors of `prefix`, which are `inner` wide.
fn feed_forward(weights: &LayerWeights, prefix: &str, inner: usize, x: &[f64]) -> Vec<f64> {
    let weight = |part: &str| weights.get(&format!("{prefix}.{part}_proj.weight"));
    let gate_up = [weight("gate"), weight("up")].concat();
    let depth = gate_up.len() / (2 * inner);
    let gated = swiglu(&matmul(x, &gate_up, depth, None, None).values, inner).values;
    matmul(&gated, weight("down"), inner, None, None).values
}

/// Adds what each row's experts make of it.
fn mix(experts: &Experts, weights: &LayerWeights, normed: &[f64], hidden: &[f64]) -> Vec<f64> {
    let router = weights.get("mlp.gate.weight");
    let width = router.len() / experts.count;
    let scores = matmul(normed, router, width, None, None).values;
    let rows = normed.chunks_exact(width).zip(hidden.chunks_exact(width)).zip(scores.chunks_exact(experts.count));
    let row = |((normed, hidden), scores): ((&[f64], &[f64]), &[f64])| {
        let (chosen, shares) = route(scores, experts.used, experts.normalised);
        let output = |&expert: &usize| {
            feed_forward(weights, &format!("mlp.experts.{expert}"), experts.feed_forward_size, normed)
        };
        let outputs: Vec<Vec<f64>> = chosen.iter().map(output).collect();
        let outputs: Vec<&[f64]> = outputs.iter().map(Vec::as_slice).collect();
        expert_sum(&shares.values, &outputs, hidden).values
    };
    rows.flat_map(row).collect()
}

/// Projections, rotation and attention of one layer over the whole sequence.
fn attend(config: &Config, weights: &LayerWeights, table: &RotaryTable, normed: &[f64]) -> Vec<f64> {
    let rows = normed.len() / config.hidden_size;
    let positions: Vec<u32> = (0..rows as u32).collect();
    let project = |part: &str| {
        let bias = config.qkv_bias.then(|| weights.get(&format!("self_attn.{part}_proj.bias")));
        let weight = weights.get(&format!("self_attn.{part}_proj.weight"));
        matmul(normed, weight, config.hidden_size, bias, None).values
    };
    let rotate = |x: &[f64], heads: usize, norm: &str| -> Expected {
        let gain = config.head_norm.then(|| weights.get(&format!("self_attn.{norm}.weight")));
        let norm: Option<HeadNorm> = gain.map(|gain| (gain, config.norm_epsilon as f32));
        rope(x, heads, config.head_dim, &positions, (&table.cos, &table.sin), norm)
    };
    let query = rotate(&project("q"), config.heads, "q_norm").values;
    let key = rotate(&project("k"), config.kv_heads, "k_norm").values;
    let value = project("v");
    let shape = AttentionShape {
        rows,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        positions: rows,
        start: 0,
        key_tile: rows,
    };
    let window = config.window(weights.layer);
    windowed_attention(shape, window, &query, &by_head(config, &key), &by_head(config, &value)).values
}

/// `[rows, kv_heads, head_dim]` to the cache's `[kv_heads, rows, head_dim]`.
fn by_head(config: &Config, x: &[f64]) -> Vec<f64> {
    let heads = config.kv_heads;
    let head_rows = |head: usize| x.chunks_exact(config.head_dim).skip(head).step_by(heads);
    (0..heads).flat_map(head_rows).flatten().copied().collect()
}
