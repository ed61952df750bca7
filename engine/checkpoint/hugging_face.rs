//! `config.json` of a Hugging Face folder → [`Config`].
//! Settings that this crate cannot compute exactly (other activations, other scalings) are refused here, by name,
//! rather than computed wrongly later. Absent keys take the defaults of `transformers`.

use std::path::Path;

use serde_json::Value;

use super::config::{Config, Experts, Family, RopeScaling, SlidingWindow, StateForm, TargetLayers, Yarn};
use super::families::Windows;
use super::json::{self, Object};
use crate::error::Result;

/// The file of a PARD-2 draft that holds the projection of its target's states.
pub const PROJECTION_FILE: &str = "warp_model.bin";
/// The tensor that projects the states of a PARD-2 draft's target, `[hidden, layers · target's hidden]`.
pub const TARGET_PROJECTION: &str = "target_proj.weight";
/// The projection's bias, `[hidden]`, in drafts that have one.
pub const TARGET_BIAS: &str = "target_proj.bias";
/// The projection in drafts of [`super::config::StateForm::Normalised`].
pub const FORMER_PROJECTION: &str = "pard.target_projection.weight";

/// Reads and checks a `config.json`.
///
/// # Errors
///
/// [`crate::Error::Io`]; [`crate::Error::Damaged`] if it is not JSON; [`crate::Error::UnknownFamily`];
/// [`crate::Error::Config`], which names the key.
pub fn read_config(path: &Path) -> Result<Config> {
    parse_config(path, &json::read(path)?)
}

/// As [`read_config`], from JSON at hand; `path` is for messages.
///
/// # Errors
///
/// [`crate::Error::UnknownFamily`], [`crate::Error::Config`], [`crate::Error::Damaged`].
pub fn parse_config(path: &Path, json: &Value) -> Result<Config> {
    let keys = Object::of(path, json)?;
    let model_type = keys.required("model_type", keys.text("model_type")?)?;
    let family = Family::from_model_type(path, model_type)?;
    refuse_unsupported(&keys, family)?;

    let size = |key: &str| keys.required(key, keys.size(key)?);
    let hidden_size = size("hidden_size")?;
    let heads = size("num_attention_heads")?;
    let layers = size("num_hidden_layers")?;
    let (rope_theta, rope_scaling) = rope(&keys)?;
    let mut context = size("max_position_embeddings")?;
    if let RopeScaling::Yarn(yarn) = &rope_scaling {
        // Published files stretch the frequencies without a word about the context that comes of it.
        context = context.max(yarn.context());
    }
    let config = Config {
        family,
        hidden_size,
        layers,
        heads,
        kv_heads: keys.size("num_key_value_heads")?.unwrap_or(heads),
        head_dim: head_dim(&keys, family, hidden_size, heads)?,
        feed_forward_size: size("intermediate_size")?,
        experts: experts(&keys, family, layers.min(Config::LARGEST))?,
        vocab_size: size("vocab_size")?,
        norm_epsilon: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta,
        rope_scaling,
        rope_factors: Vec::new(),
        sliding_window: sliding_window(&keys, family, layers.min(Config::LARGEST))?,
        tied_head: keys.flag("tie_word_embeddings")?,
        qkv_bias: family.definition().qkv_bias,
        head_norm: family.definition().head_norm,
        context,
        mask_token: mask_token(&keys)?,
        shared_embeddings: keys.flag("shared_embeddings")?,
        target_layers: target_layers(&keys)?,
    };
    config.check(path)?;
    Ok(config)
}

/// Keys of other families, by which models scale, bound or leave out something. Absent, false, 0 and 1 are without effect.
const OTHER_ARITHMETIC: [&str; 11] = [
    "attention_multiplier",
    "attn_logit_softcapping",
    "clip_qkv",
    "embedding_multiplier",
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "no_rope_layers",
    "query_pre_attn_scalar",
    "residual_multiplier",
    "use_bidirectional_attention",
];

fn refuse_unsupported(keys: &Object, family: Family) -> Result<()> {
    // The last two are MLX's and an older one of compressed-tensors.
    if let Some(key) = ["quantization_config", "quantization", "compression_config"].iter().find(|key| keys.has(key)) {
        let reason = "quantised safetensors are not supported; use the BF16, F16 or F32 model, or a GGUF file";
        return Err(keys.fault(key, reason));
    }
    for key in OTHER_ARITHMETIC {
        let is_none = match keys.get(key) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::Number(number)) => matches!(number.as_f64(), Some(0.0 | 1.0)),
            Some(Value::Array(layers)) => layers.iter().all(|layer| layer == 1),
            Some(_) => false,
        };
        if !is_none {
            return Err(keys.fault(key, "it changes what the model computes, and is not supported"));
        }
    }
    if keys.get("is_causal") == Some(&false.into()) {
        return Err(keys.fault("is_causal", "attention to later tokens is not supported"));
    }
    let activation = keys.text("hidden_act")?.unwrap_or("silu");
    if !matches!(activation, "silu" | "swish") {
        return Err(keys.fault("hidden_act", format!("{activation:?} is not supported; supported: silu")));
    }
    if family.definition().honours_attention_bias && keys.flag("attention_bias")? {
        return Err(
            keys.fault("attention_bias", "true puts a bias on o_proj as well as on q, k and v, which is not supported")
        );
    }
    if family.definition().has_experts && keys.flag("use_sliding_window")? {
        return Err(keys.fault("use_sliding_window", "an attention window beside experts is not supported"));
    }
    if keys.flag("mlp_bias")? {
        return Err(keys.fault("mlp_bias", "a bias in the feed-forward layer is not supported"));
    }
    Ok(())
}

/// The mixtures of experts, if any layer is one: every `decoder_sparse_step`th, but those of `mlp_only_layers`.
fn experts(keys: &Object, family: Family, layers: usize) -> Result<Option<Experts>> {
    if !family.definition().has_experts {
        return Ok(None);
    }
    let size = |key: &str, default: usize| Ok(keys.size(key)?.unwrap_or(default));
    // The first is what older files call the second.
    let count = keys.size("num_experts")?.or(keys.size("num_local_experts")?).unwrap_or(128);
    let step = size("decoder_sparse_step", 1)?;
    if step == 0 {
        return Err(keys.fault("decoder_sparse_step", "0 is not supported; 1 makes all layers mixtures of experts"));
    }
    let mut layers: Vec<bool> = (1..=layers).map(|number| count > 0 && number.is_multiple_of(step)).collect();
    for layer in keys.integers("mlp_only_layers")?.unwrap_or_default() {
        if let Some(mixture) = usize::try_from(layer).ok().and_then(|layer| layers.get_mut(layer)) {
            *mixture = false;
        }
    }
    let experts = Experts {
        count,
        used: size("num_experts_per_tok", 8)?,
        feed_forward_size: size("moe_intermediate_size", 768)?,
        normalised: keys.flag("norm_topk_prob")?,
        layers,
    };
    Ok(Some(experts).filter(|experts| experts.layers.contains(&true)))
}

fn head_dim(keys: &Object, family: Family, hidden_size: usize, heads: usize) -> Result<usize> {
    if let Some(head_dim) = keys.size("head_dim")?.or(family.definition().head_dim) {
        return Ok(head_dim);
    }
    match hidden_size.checked_rem(heads) {
        Some(0) => Ok(hidden_size / heads),
        Some(_) => {
            Err(keys
                .fault("num_attention_heads", format!("hidden_size {hidden_size} does not divide by {heads} heads")))
        }
        None => Err(keys.fault("num_attention_heads", "0 heads")),
    }
}

/// The base and the scaling of the rotary frequencies. Newer files keep both in `rope_parameters`, and people add the older
/// `rope_scaling` to these, as the cards of models tell them; that one counts, as in `transformers`.
fn rope(keys: &Object) -> Result<(f64, RopeScaling)> {
    let newer = keys.object("rope_parameters", "rope_parameters.")?;
    let older = keys.object("rope_scaling", "rope_scaling.")?.filter(|older| older.keys().next().is_some());
    let chosen = older.or(newer);
    let mut theta = keys.number("rope_theta")?;
    if let Some(chosen) = &chosen {
        if let Some(kind) = chosen.keys().find(|key| chosen.get(key).is_some_and(Value::is_object)) {
            return Err(chosen.fault(kind, "rotary frequencies of its own for a kind of layers are not supported"));
        }
        theta = chosen.number("rope_theta")?.or(theta);
    }
    // Where both are there, `transformers` reads the older one alone.
    if let (None, Some(_), Some(newer)) = (theta, older, newer)
        && newer.get("rope_theta").is_some()
    {
        let reason = "is not read beside rope_scaling; put the base there, or at the top";
        return Err(newer.fault("rope_theta", reason));
    }
    let scaling = match chosen {
        Some(scaling) => rope_scaling(keys, &scaling)?,
        None => RopeScaling::None,
    };
    for (object, key) in chosen.iter().chain([keys]).map(|object| (object, "partial_rotary_factor")) {
        if object.number(key)?.is_some_and(|factor| factor != 1.0) {
            return Err(object.fault(key, "rotating only a part of each head is not supported"));
        }
    }
    Ok((theta.unwrap_or(10_000.0), scaling))
}

fn rope_scaling(keys: &Object, scaling: &Object) -> Result<RopeScaling> {
    let kind = match scaling.text("rope_type")? {
        Some(kind) => Some(kind),
        None => scaling.text("type")?,
    };
    let positive = |key: &str| {
        let number = scaling.required(key, scaling.number(key)?)?;
        match number.is_finite() && number > 0.0 {
            true => Ok(number),
            false => Err(scaling.fault(key, format!("{number} is not a positive number"))),
        }
    };
    // `transformers` prefers the one at the top, and takes the whole context where there is none.
    let original_context = || {
        let original = "original_max_position_embeddings";
        match (keys.number(original)?, scaling.get(original)) {
            (Some(context), _) if context.is_finite() && context > 0.0 => Ok(context),
            (Some(context), _) => Err(keys.fault(original, format!("{context} is not a positive number"))),
            (None, Some(_)) => positive(original),
            (None, None) => Ok(keys.required(original, keys.number("max_position_embeddings")?)?),
        }
    };
    match kind {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: positive("factor")? }),
        Some("yarn") => yarn(scaling, positive, original_context()?).map(RopeScaling::Yarn),
        Some("llama3") => {
            let original_context = original_context()?;
            let (low_freq_factor, high_freq_factor) = (positive("low_freq_factor")?, positive("high_freq_factor")?);
            if low_freq_factor >= high_freq_factor {
                let reason = format!("{high_freq_factor} is not above low_freq_factor, {low_freq_factor}");
                return Err(scaling.fault("high_freq_factor", reason));
            }
            Ok(RopeScaling::Llama3 { factor: positive("factor")?, low_freq_factor, high_freq_factor, original_context })
        }
        Some(other) => {
            let known = "default, linear, llama3, yarn";
            Err(scaling.fault("rope_type", format!("{other:?} is not supported; supported: {known}")))
        }
    }
}

/// Reads a `yarn` scaling as `transformers` does; `positive` reads a positive number that must be there.
fn yarn(scaling: &Object, positive: impl Fn(&str) -> Result<f64>, original_context: f64) -> Result<Yarn> {
    let given = |key: &str| if scaling.get(key).is_some() { positive(key).map(Some) } else { Ok(None) };
    let defaults = Yarn::new(positive("factor")?, original_context);
    let (beta_fast, beta_slow) = (given("beta_fast")?, given("beta_slow")?);
    let attention_factor =
        match (given("attention_factor")?, scaling.number("mscale")?, scaling.number("mscale_all_dim")?) {
            (Some(given), ..) => given,
            (None, Some(mscale), Some(all)) if mscale != 0.0 && all != 0.0 => {
                Yarn::magnitude(defaults.factor, mscale) / Yarn::magnitude(defaults.factor, all)
            }
            _ => defaults.attention_factor,
        };
    let truncate = scaling.get("truncate").is_none() || scaling.flag("truncate")?;
    let yarn = Yarn {
        beta_fast: beta_fast.unwrap_or(defaults.beta_fast),
        beta_slow: beta_slow.unwrap_or(defaults.beta_slow),
        attention_factor,
        truncate,
        ..defaults
    };
    yarn.check().map_err(|(key, reason)| scaling.fault(key, reason))?;
    Ok(yarn)
}

/// The attention window, if any layer has one. Newer files list the layers that do.
fn sliding_window(keys: &Object, family: Family, layers: usize) -> Result<Option<SlidingWindow>> {
    let windows = family.definition().windows;
    if windows == Windows::None {
        return Ok(None);
    }
    let listed = layer_types(keys, layers)?;
    let in_use = windows == Windows::All || keys.flag("use_sliding_window")?;
    // `transformers` tells a key that is not there from one that is null.
    let is_named = keys.keys().any(|key| key == "sliding_window");
    let tokens = if is_named { keys.size("sliding_window")? } else { Some(4096) };
    let layers = match listed {
        Some(listed) => listed,
        None if windows == Windows::Upper => {
            let full_layers = keys.size("max_window_layers")?.unwrap_or(28);
            (0..layers).map(|layer| layer >= full_layers).collect()
        }
        None => vec![true; layers],
    };
    let tokens = tokens.filter(|_| in_use && layers.contains(&true));
    Ok(tokens.map(|tokens| SlidingWindow { tokens, layers }))
}

/// Reads `layer_types`, if present: `true` for each layer whose attention slides.
fn layer_types(keys: &Object, layers: usize) -> Result<Option<Vec<bool>>> {
    let Some(types) = keys.get("layer_types") else { return Ok(None) };
    let types = types.as_array().ok_or_else(|| keys.fault("layer_types", "expected a list"))?;
    if types.len() != layers {
        return Err(keys.fault("layer_types", format!("{} entries for {layers} layers", types.len())));
    }
    let slides = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => {
            let known = "full_attention, sliding_attention";
            Err(keys.fault("layer_types", format!("{kind} is not supported; supported: {known}")))
        }
    };
    types.iter().map(slides).collect::<Result<_>>().map(Some)
}

/// Keys of the mask token of a parallel draft. PARD writes the first; other engines read the others as well.
const MASK_KEYS: [&str; 3] = ["pard_token", "mask_token_id", "ptd_token_id"];

/// Returns `true` if a `config.json` is that of a draft, which does without a tokenizer of its own.
pub(crate) fn is_draft(config: &Value) -> bool {
    let names_mask = |key: &str| config.get(key).is_some_and(Value::is_u64);
    MASK_KEYS.into_iter().any(names_mask) || config.get("shared_embeddings") == Some(&true.into())
}

/// The mask token, -1 if there is none.
fn mask_token(keys: &Object) -> Result<Option<u32>> {
    for key in MASK_KEYS {
        if let Some(token) = keys.token(key)? {
            return Ok(Some(token));
        }
    }
    Ok(None)
}

/// Input width of a projection that a PARD-2 draft names no width of.
const PARD2_WIDTH: usize = 4096;

/// Reads the states of its target that a draft reads, if it does: PARD-2's keys with their aliases, or those of drafts that
/// this crate wrote before.
fn target_layers(keys: &Object) -> Result<Option<TargetLayers>> {
    let is_pard2 = keys.flag("pard2")? || keys.text("spd_type")? == Some("pard2");
    if let Some(layers) = keys.integers("pard2_target_layers")?.filter(|_| is_pard2) {
        let mut scale = None;
        for key in ["pard2_scale", "pard_scale", "feat_scale"] {
            scale = scale.or(keys.number(key)?);
        }
        let (width_key, width) = match (keys.size("pard2_target_dim")?, keys.size("pard_target_dim")?) {
            (None, Some(width)) => ("pard_target_dim", width),
            (width, _) => ("pard2_target_dim", width.unwrap_or(PARD2_WIDTH)),
        };
        let bias = match keys.get("pard2_proj_bias") {
            Some(_) => keys.flag("pard2_proj_bias")?,
            None => keys.flag("proj_bias")?,
        };
        if !layers.is_empty() && !width.is_multiple_of(layers.len()) {
            return Err(keys.fault(width_key, format!("{width} values are not {} states of one width", layers.len())));
        }
        let hidden_size = width.checked_div(layers.len()).unwrap_or(width);
        let scale = scale.map_or(TargetLayers::SCALE, |scale| scale as f32);
        return Ok(Some(TargetLayers { layers, hidden_size, scale, bias, form: StateForm::Pard2 }));
    }
    let Some(layers) = keys.integers("target_layers")?.filter(|_| !is_pard2) else { return Ok(None) };
    let hidden_size = keys.required("target_hidden_size", keys.size("target_hidden_size")?)?;
    Ok(Some(TargetLayers { layers, hidden_size, scale: 1.0, bias: false, form: StateForm::Normalised }))
}
