//! [`Config`] from the metadata keys, which begin with the architecture's name.

use super::Gguf;
use super::metadata::Metadata;
use super::names::ROPE_FACTORS;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::{Config, Experts, Family, RopeScaling, SlidingWindow, Yarn};
use crate::error::{Error, Result};

/// llama.cpp's base where the file names none.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;

/// The architecture's name, which every hyper-parameter's key begins with.
pub(super) fn architecture(metadata: Metadata<'_>) -> Result<&str> {
    metadata
        .text("general.architecture")?
        .ok_or_else(|| metadata.fault("general.architecture", "the key is missing".to_owned()))
}

/// Query heads.
pub(super) fn heads(metadata: Metadata, architecture: &str) -> Result<usize> {
    required(metadata, &format!("{architecture}.attention.head_count"))
}

/// Key and value heads; as many as query heads where the file does not say.
pub(super) fn kv_heads(metadata: Metadata, architecture: &str) -> Result<usize> {
    match optional(metadata, &format!("{architecture}.attention.head_count_kv"))? {
        Some(heads) => Ok(heads),
        None => heads(metadata, architecture),
    }
}

pub(super) fn read_config(file: &Gguf) -> Result<Config> {
    let metadata = file.metadata();
    let architecture = architecture(metadata)?;
    let family = Family::from_architecture(metadata.path, architecture)?;
    let key = |name: &str| format!("{architecture}.{name}");
    refuse_unsupported(metadata, architecture)?;
    refuse_other_arithmetic(metadata, architecture)?;

    let hidden_size = required(metadata, &key("embedding_length"))?;
    let heads = heads(metadata, architecture)?;
    let head_dim = match optional(metadata, &key("attention.key_length"))? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(metadata.fault(
                &key("attention.head_count"),
                format!("{hidden_size} values of the residual stream do not divide into {heads} heads"),
            ));
        }
    };
    let scale_key = key("attention.scale");
    if let Some(scale) = metadata.float(&scale_key)?.filter(|&scale| scale != 0.0)
        && (scale * (head_dim as f64).sqrt() - 1.0).abs() > 1e-4
    {
        let reason = format!("{scale} is not supported; supported: 1 / √{head_dim}, by the width of heads");
        return Err(metadata.fault(&scale_key, reason));
    }
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let Some(value) = optional(metadata, &key(name))?
            && value != head_dim
        {
            return Err(metadata.fault(&key(name), format!("{value} where heads are {head_dim} wide is not supported")));
        }
    }
    let vocab_size = match file.find("model.embed_tokens.weight").map(|tensor| tensor.shape.as_slice()) {
        Some([vocab_size, _]) => *vocab_size,
        _ => metadata.texts("tokenizer.ggml.tokens")?.map_or(0, |tokens| tokens.len()),
    };
    let (rope_scaling, rope_factors) = read_rope_scaling(file, metadata, architecture, head_dim)?;
    let mut context = required(metadata, &key("context_length"))?;
    if let RopeScaling::Yarn(yarn) = &rope_scaling {
        context = context.max(yarn.context());
    }
    let layers = required(metadata, &key("block_count"))?;
    let has = |name: &str| file.find(name).is_some();
    let sliding_window = read_window(metadata, architecture, family, layers.min(Config::LARGEST), context)?;
    let family = match family {
        Family::Llama if sliding_window.is_some() => Family::Mistral,
        family => family,
    };
    let experts = read_experts(file, metadata, architecture, family, layers.min(Config::LARGEST))?;
    let feed_forward_size = match (optional(metadata, &key("feed_forward_length"))?, &experts) {
        (None, Some(experts)) if !experts.layers.contains(&false) => experts.feed_forward_size,
        (size, _) => size.ok_or_else(|| missing(metadata, &key("feed_forward_length")))?,
    };
    let config = Config {
        family,
        hidden_size,
        layers,
        heads,
        kv_heads: kv_heads(metadata, architecture)?,
        head_dim,
        feed_forward_size,
        experts,
        vocab_size,
        norm_epsilon: required_float(metadata, &key("attention.layer_norm_rms_epsilon"))?,
        rope_theta: metadata.float(&key("rope.freq_base"))?.unwrap_or(DEFAULT_ROPE_THETA),
        rope_scaling,
        rope_factors,
        sliding_window,
        tied_head: !has("lm_head.weight"),
        qkv_bias: has("model.layers.0.self_attn.q_proj.bias"),
        head_norm: has("model.layers.0.self_attn.q_norm.weight"),
        context,
        mask_token: None,
        shared_embeddings: false,
        target_layers: None,
    };
    config.check(metadata.path)?;
    Ok(config)
}

/// Refuses what would load and then compute something else than the model does.
fn refuse_unsupported(metadata: Metadata, architecture: &str) -> Result<()> {
    if metadata.text("general.type")? == Some("adapter") {
        let reason =
            "the file is a LoRA adapter and no model; merge it into its base model first (`llama-export-lora`)";
        return Err(metadata.fault("general.type", reason.to_owned()));
    }
    let causal = format!("{architecture}.attention.causal");
    if metadata.boolean(&causal)? == Some(false) {
        return Err(metadata.fault(&causal, "attention to later tokens is not supported".to_owned()));
    }
    Ok(())
}

/// Refuses what other architectures scale, bound or leave out, which is without effect where it is 0 or 1.
fn refuse_other_arithmetic(metadata: Metadata, architecture: &str) -> Result<()> {
    for name in [
        "attention.clamp_kqv",
        "attention.max_alibi_bias",
        "attention.output_scale",
        "attention.shared_kv_layers",
        "attention.temperature_scale",
        "attn_logit_softcapping",
        "embedding_scale",
        "final_logit_softcapping",
        "logit_scale",
        "no_rope_layer_step",
        "residual_scale",
    ] {
        let key = format!("{architecture}.{name}");
        if let Some(value) = metadata.float(&key)?.filter(|value| !matches!(value, 0.0 | 1.0)) {
            return Err(metadata.fault(&key, format!("{value} changes what the model computes, and is not supported")));
        }
    }
    let parallel = format!("{architecture}.use_parallel_residual");
    match metadata.boolean(&parallel)? {
        Some(true) => Err(metadata.fault(&parallel, "it is not supported".to_owned())),
        _ => Ok(()),
    }
}

/// Mixtures of experts, in the layers that have a router. Refuses those that would be computed otherwise than here.
fn read_experts(
    file: &Gguf,
    metadata: Metadata,
    architecture: &str,
    family: Family,
    layers: usize,
) -> Result<Option<Experts>> {
    let key = |name: &str| format!("{architecture}.{name}");
    let count = match optional(metadata, &key("expert_count"))? {
        None | Some(0) => return Ok(None),
        Some(count) => count,
    };
    let refused = |name: &str, reason: String| Err(metadata.fault(&key(name), reason));
    if !family.definition().has_experts {
        return refused(
            "expert_count",
            format!("mixtures of experts ({count} here) are not supported in {architecture}"),
        );
    }
    // As they are where the file does not say.
    for (name, usual) in [("expert_shared_count", 0), ("expert_gating_func", 1), ("expert_group_count", 1)] {
        if let Some(value) = optional(metadata, &key(name))?
            && value != usual
            && value != 0
        {
            return refused(name, format!("{value} is not supported; supported: {usual}"));
        }
    }
    if let Some(scale) = metadata.float(&key("expert_weights_scale"))?
        && scale != 1.0
        && scale != 0.0
    {
        return refused("expert_weights_scale", format!("{scale} is not supported; supported: 1"));
    }
    let used = required(metadata, &key("expert_used_count"))?;
    let feed_forward_size = match optional(metadata, &key("expert_feed_forward_length"))? {
        Some(size) => size,
        // llama.cpp's default.
        None => required(metadata, &key("feed_forward_length"))?.checked_div(used).unwrap_or(0),
    };
    let mut layers = vec![false; layers];
    for tensor in file.tensors() {
        let router = tensor.name.strip_prefix("model.layers.").and_then(|name| name.strip_suffix(".mlp.gate.weight"));
        if let Some(mixture) = router.and_then(|layer| layers.get_mut(layer.parse::<usize>().ok()?)) {
            *mixture = true;
        }
    }
    if !layers.contains(&true) {
        return refused("expert_count", format!("{count}, but no layer has a tensor ffn_gate_inp.weight"));
    }
    // As the family's files have it that do not say.
    let normalised = metadata.boolean(&key("expert_weights_norm"))?.unwrap_or(true);
    Ok(Some(Experts { count, used, feed_forward_size, normalised, layers }))
}

/// Rotary scaling. As in llama.cpp, a factor without a type is a linear one, and 0 or 1 is none.
fn read_rope_scaling(
    file: &Gguf,
    metadata: Metadata,
    architecture: &str,
    head_dim: usize,
) -> Result<(RopeScaling, Vec<f32>)> {
    let type_key = format!("{architecture}.rope.scaling.type");
    let factor_key = format!("{architecture}.rope.scaling.factor");
    let scaling = match metadata.text(&type_key)?.unwrap_or("linear") {
        "none" => RopeScaling::None,
        "linear" => {
            let factor = match metadata.float(&factor_key)? {
                Some(factor) => Some(factor),
                None => metadata.float(&format!("{architecture}.rope.scale_linear"))?,
            };
            match factor {
                None | Some(0.0 | 1.0) => RopeScaling::None,
                Some(factor) if factor.is_finite() && factor > 0.0 => RopeScaling::Linear { factor },
                Some(factor) => return Err(metadata.fault(&factor_key, format!("{factor} is not a positive number"))),
            }
        }
        "yarn" => RopeScaling::Yarn(read_yarn(metadata, architecture)?),
        other => {
            return Err(metadata.fault(
                &type_key,
                format!("{other:?} is not supported; supported: none, linear, yarn, and the factors of {ROPE_FACTORS}"),
            ));
        }
    };
    for name in ["rope_factors_long.weight", "rope_factors_short.weight"] {
        if file.find(name).is_some() {
            return Err(metadata.fault(name, "rotary factors that depend on the length are not supported".to_owned()));
        }
    }
    if file.find(ROPE_FACTORS).is_none() {
        return Ok((scaling, Vec::new()));
    }
    if scaling != RopeScaling::None {
        let reason = format!("a scaling of this type together with {ROPE_FACTORS} is not supported");
        return Err(metadata.fault(&type_key, reason));
    }
    let factors = file.read_vector(ROPE_FACTORS, head_dim / 2)?;
    if let Some(factor) = factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
        return Err(metadata.fault(ROPE_FACTORS, format!("{factor} is not a positive number")));
    }
    Ok((RopeScaling::Factors, factors))
}

/// The attention window. llama.cpp's layers have it as `sliding_window_pattern` says; without one, all of Mistral do,
/// which is a `llama` here, and of others it is not known.
fn read_window(
    metadata: Metadata,
    architecture: &str,
    family: Family,
    layers: usize,
    context: usize,
) -> Result<Option<SlidingWindow>> {
    let key = format!("{architecture}.attention.sliding_window");
    let tokens = match optional(metadata, &key)? {
        None | Some(0) => return Ok(None),
        Some(tokens) => tokens,
    };
    let layers = match metadata.booleans(&format!("{key}_pattern"))? {
        Some(pattern) => pattern,
        None if matches!(family, Family::Llama | Family::Mistral) => vec![true; layers],
        None if tokens >= context => return Ok(None),
        None => {
            let reason = format!("{tokens}, but no {key}_pattern to say in which layers");
            return Err(metadata.fault(&key, reason));
        }
    };
    Ok(layers.contains(&true).then_some(SlidingWindow { tokens, layers }))
}

/// YaRN, whose blend llama.cpp truncates as well. Its magnitude is `yarn_attn_factor`, which converters copy from Hugging
/// Face's `attention_factor`; else what `yarn_log_multiplier` (`mscale_all_dim`) makes of it, times `attn_factor`.
fn read_yarn(metadata: Metadata, architecture: &str) -> Result<Yarn> {
    let key = |name: &str| format!("{architecture}.rope.scaling.{name}");
    let positive = |name: &str| match metadata.float(&key(name))? {
        Some(value) if value.is_finite() && value > 0.0 => Ok(Some(value)),
        Some(value) => Err(metadata.fault(&key(name), format!("{value} is not a positive number"))),
        None => Ok(None),
    };
    let required = |name: &str| {
        positive(name)?.ok_or_else(|| metadata.fault(&key(name), "the key is missing, which yarn needs".to_owned()))
    };
    // llama.cpp writes -1 for what was not said.
    if let Some(share) = metadata.float(&key("yarn_ext_factor"))?
        && share != 1.0
        && share != -1.0
    {
        return Err(metadata.fault(&key("yarn_ext_factor"), format!("{share} is not supported; supported: 1")));
    }
    let defaults = Yarn::new(required("factor")?, required("original_context_length")?);
    let all_dims = metadata.float(&key("yarn_log_multiplier"))?.filter(|&multiplier| multiplier != 0.0);
    let attention_factor = match positive("yarn_attn_factor")? {
        Some(factor) => factor,
        None => {
            let scale = positive("attn_factor")?.unwrap_or(1.0);
            scale * defaults.attention_factor / all_dims.map_or(1.0, |all| Yarn::magnitude(defaults.factor, all))
        }
    };
    let yarn = Yarn {
        beta_fast: positive("yarn_beta_fast")?.unwrap_or(defaults.beta_fast),
        beta_slow: positive("yarn_beta_slow")?.unwrap_or(defaults.beta_slow),
        attention_factor,
        ..defaults
    };
    yarn.check().map_err(|(field, reason)| metadata.fault(&key(&format!("yarn_{field}")), reason))?;
    Ok(yarn)
}

fn optional(metadata: Metadata, key: &str) -> Result<Option<usize>> {
    match metadata.uniform_unsigned(key)? {
        None => Ok(None),
        Some(value) => {
            usize::try_from(value).map(Some).map_err(|_| metadata.fault(key, format!("{value} is out of range")))
        }
    }
}

fn required(metadata: Metadata, key: &str) -> Result<usize> {
    optional(metadata, key)?.ok_or_else(|| missing(metadata, key))
}

fn missing(metadata: Metadata, key: &str) -> Error {
    metadata.fault(key, "the key is missing".to_owned())
}

fn required_float(metadata: Metadata, key: &str) -> Result<f64> {
    metadata.float(key)?.ok_or_else(|| metadata.fault(key, "the key is missing".to_owned()))
}
