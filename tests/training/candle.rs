//! The draft's loss on candle, on the CPU, for its autograd; the mask is written out as a matrix.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Result, Tensor};
use pard::checkpoint::config::Config;
use pard::checkpoint::hugging_face::{TARGET_BIAS, TARGET_PROJECTION};
use pard::low_level::forward::rope_table;
use pard::low_level::training::PackedRows;

/// A row: the token it reads, its position, the token it predicts, and which rows it sees.
pub struct Row {
    pub id: u32,
    pub position: usize,
    pub label: Option<u32>,
    pub sees: Vec<usize>,
}

impl Row {
    /// The rows of `packed`, for a reference that knows of no ranges.
    pub fn all(packed: &PackedRows) -> Vec<Row> {
        let row = |row: usize| {
            let at = packed.rows[row];
            let sees = (at.context_first..at.context_end).chain(at.chain_first..row as u32 + 1);
            Row {
                id: packed.ids[row],
                position: at.position as usize,
                label: packed.labels[row],
                sees: sees.map(|row| row as usize).collect(),
            }
        };
        (0..packed.rows.len()).map(row).collect()
    }
}

/// The model's tensors by their Hugging Face names; those that are variables get gradients.
pub type Tensors = BTreeMap<String, Tensor>;

/// The sum of the rows' cross-entropies; `states` as for [`logits`].
pub fn loss(config: &Config, weights: &Tensors, rows: &[Row], states: Option<&Tensor>) -> Result<Tensor> {
    let logits = candle_nn::ops::log_softmax(&logits(config, weights, rows, states)?, D::Minus1)?;
    let (labelled, labels): (Vec<u32>, Vec<u32>) =
        rows.iter().enumerate().filter_map(|(row, it)| Some((row as u32, it.label?))).unzip();
    let chosen = logits.index_select(&Tensor::new(labelled, &Device::Cpu)?, 0)?;
    chosen.gather(&Tensor::new(labels, &Device::Cpu)?.unsqueeze(1)?, 1)?.sum_all()?.neg()
}

/// The rows' logits, `[rows, vocab]`. A draft that reads its target's states gets what each row reads, times the
/// projection's factor, `[rows, layers · hidden]`.
pub fn logits(config: &Config, weights: &Tensors, rows: &[Row], states: Option<&Tensor>) -> Result<Tensor> {
    let mut hidden = embedded(weights, rows)?;
    if let Some(states) = states {
        hidden = (hidden + states.matmul(&weights[TARGET_PROJECTION].t()?)?)?;
        if let (Some(bias), Some(target)) = (weights.get(TARGET_BIAS), &config.target_layers) {
            hidden = hidden.broadcast_add(&(bias * f64::from(target.scale))?)?;
        }
    }
    let hidden = through_layers(config, weights, rows, hidden, &mut |_, _| Ok(()))?;
    let normed = rms_norm(&hidden, &weights["model.norm.weight"], config.norm_epsilon)?;
    let head = if config.tied_head { "model.embed_tokens.weight" } else { "lm_head.weight" };
    normed.matmul(&weights[head].t()?)
}

/// The rows of the embedding that `rows` read.
pub fn embedded(weights: &Tensors, rows: &[Row]) -> Result<Tensor> {
    let ids: Vec<u32> = rows.iter().map(|row| row.id).collect();
    weights["model.embed_tokens.weight"].index_select(&Tensor::new(ids, &Device::Cpu)?, 0)
}

/// The residual stream behind the last layer; `seen` is shown that behind each.
pub fn through_layers(
    config: &Config,
    weights: &Tensors,
    rows: &[Row],
    mut hidden: Tensor,
    seen: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
) -> Result<Tensor> {
    let weight = |name: &str| &weights[name];
    let mask: Vec<f32> = rows
        .iter()
        .flat_map(|row| (0..rows.len()).map(|other| if row.sees.contains(&other) { 0.0 } else { f32::NEG_INFINITY }))
        .collect();
    let mask = Tensor::from_vec(mask, (rows.len(), rows.len()), &Device::Cpu)?;
    let (cos, sin) = angles(config, rows)?;
    for layer in 0..config.layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let normed = rms_norm(&hidden, weight(&name("input_layernorm.weight")), config.norm_epsilon)?;
        let project = |part: &str, heads: usize| -> Result<Tensor> {
            let mut x = normed.matmul(&weight(&name(&format!("self_attn.{part}_proj.weight"))).t()?)?;
            if config.qkv_bias {
                x = x.broadcast_add(weight(&name(&format!("self_attn.{part}_proj.bias"))))?;
            }
            x.reshape((rows.len(), heads, config.head_dim))
        };
        let [mut q, mut k] = [project("q", config.heads)?, project("k", config.kv_heads)?];
        if config.head_norm {
            q = rms_norm(&q, weight(&name("self_attn.q_norm.weight")), config.norm_epsilon)?;
            k = rms_norm(&k, weight(&name("self_attn.k_norm.weight")), config.norm_epsilon)?;
        }
        let v = project("v", config.kv_heads)?;
        let [q, k] = [rotate(&q, &cos, &sin)?, rotate(&k, &cos, &sin)?];
        // [heads, rows, head_dim]
        let group = config.heads / config.kv_heads;
        let spread = |x: &Tensor| -> Result<Tensor> {
            let index: Vec<u32> = (0..config.heads).map(|head| (head / group) as u32).collect();
            x.index_select(&Tensor::new(index, &Device::Cpu)?, 1)?.transpose(0, 1)?.contiguous()
        };
        let (q, k, v) = (q.transpose(0, 1)?.contiguous()?, spread(&k)?, spread(&v)?);
        let scores = (q.matmul(&k.t()?.contiguous()?)? / (config.head_dim as f64).sqrt())?.broadcast_add(&mask)?;
        let attended = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
        let attended = attended.transpose(0, 1)?.contiguous()?.reshape((rows.len(), config.query_size()))?;
        hidden = (hidden + attended.matmul(&weight(&name("self_attn.o_proj.weight")).t()?)?)?;
        let normed = rms_norm(&hidden, weight(&name("post_attention_layernorm.weight")), config.norm_epsilon)?;
        let gate = normed.matmul(&weight(&name("mlp.gate_proj.weight")).t()?)?.silu()?;
        let up = normed.matmul(&weight(&name("mlp.up_proj.weight")).t()?)?;
        hidden = (hidden + (gate * up)?.matmul(&weight(&name("mlp.down_proj.weight")).t()?)?)?;
        seen(layer, &hidden)?;
    }
    Ok(hidden)
}

/// `x / √(mean(x²) + ε) · gain`, row by row.
pub fn rms_norm(x: &Tensor, gain: &Tensor, epsilon: f64) -> Result<Tensor> {
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?.recip()?;
    x.broadcast_mul(&scale)?.broadcast_mul(gain)
}

/// Cosines and sines, `[rows, 1, head_dim / 2]` each.
fn angles(config: &Config, rows: &[Row]) -> Result<(Tensor, Tensor)> {
    let half = config.head_dim / 2;
    let longest = rows.iter().map(|row| row.position + 1).max().unwrap_or(1);
    let table = rope_table::angles(config, longest);
    let pick = |offset: usize| -> Result<Tensor> {
        let values: Vec<f32> =
            rows.iter().flat_map(|row| table[row.position * config.head_dim + offset..][..half].to_vec()).collect();
        Tensor::from_vec(values, (rows.len(), 1, half), &Device::Cpu)?.to_dtype(DType::F32)
    };
    Ok((pick(0)?, pick(half)?))
}

fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let second = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}
