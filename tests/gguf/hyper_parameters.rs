//! Hyper-parameters from metadata.

use pard::checkpoint::config::{Config, Family, RopeScaling, SlidingWindow, Yarn};
use pard::{Error, Result};

use super::open_good;
use super::writer::{Value, Writer, element, small_llama};

fn config(writer: &Writer) -> Result<Config> {
    open_good(&writer.bytes()).1.config()
}

/// `writer` with `llama.` keys renamed.
fn as_architecture(mut writer: Writer, architecture: &str) -> Writer {
    for (key, _) in &mut writer.keys {
        if let Some(rest) = key.strip_prefix("llama.") {
            *key = format!("{architecture}.{rest}");
        }
    }
    writer.key("general.architecture", architecture)
}

#[test]
fn all_fields_are_read() {
    let expected = Config {
        family: Family::Llama,
        hidden_size: 64,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        feed_forward_size: 96,
        experts: None,
        vocab_size: 266,
        norm_epsilon: 1e-5,
        rope_theta: 100_000.0,
        rope_scaling: RopeScaling::None,
        rope_factors: Vec::new(),
        sliding_window: None,
        tied_head: true,
        qkv_bias: false,
        head_norm: false,
        context: 128,
        mask_token: None,
        shared_embeddings: false,
        target_layers: None,
    };
    assert_eq!(config(&small_llama()).expect("a configuration"), expected);
    let version_2 = Writer { version: 2, ..small_llama() };
    assert_eq!(config(&version_2).expect("a configuration"), expected);
    let mistral = config(&as_architecture(small_llama(), "mistral")).expect("a configuration");
    assert_eq!(mistral.family, Family::Mistral);
}

#[test]
fn values_of_other_types_than_usual_are_read() {
    let pattern = |value| {
        let key = "llama.attention.sliding_window_pattern";
        config(&small_llama().key("llama.attention.sliding_window", 9).key(key, value)).expect("a configuration")
    };
    let bools = Value::Raw(9, [&7u32.to_le_bytes()[..], &2u64.to_le_bytes(), &[1, 0]].concat());
    assert_eq!(pattern(Value::I32s(vec![1, 0])), pattern(bools));
    let error = config(&small_llama().key("llama.block_count", "two")).expect_err("a text is no number");
    assert!(error.to_string().contains("a string where an integer belongs"), "{error}");
    let error = config(&small_llama().key("llama.attention.causal", false)).expect_err("it sees later tokens");
    assert!(error.to_string().contains("llama.attention.causal"), "{error}");
    let scaled = small_llama().key("llama.rope.scaling.factor", 4.0).counting("rope_freqs.weight", &[16]);
    let error = config(&scaled).expect_err("two scalings").to_string();
    assert!(error.contains("rope_freqs.weight") && !error.contains('{'), "{error}");
}

#[test]
fn arithmetic_of_other_architectures_is_refused_unless_it_is_without_effect() {
    for name in ["logit_scale", "residual_scale", "attn_logit_softcapping", "attention.clamp_kqv", "attention.scale"] {
        let key = format!("llama.{name}");
        assert_fault(&small_llama().key(&key, 0.25), &key, "not supported");
        config(&small_llama().key(&key, 0.0)).expect("a configuration");
    }
    config(&small_llama().key("llama.attention.scale", 0.176_776_7)).expect("as heads of 32 have it");
    config(&small_llama().key("llama.logit_scale", 1.0)).expect("a configuration");
    config(&small_llama().key("llama.use_parallel_residual", false)).expect("a configuration");
    assert_fault(&small_llama().key("llama.use_parallel_residual", true), "llama.use_parallel_residual", "supported");
}

#[test]
fn what_a_family_has_shows_in_its_tensors() {
    let qwen2 = as_architecture(small_llama(), "qwen2")
        .counting("blk.0.attn_q.bias", &[64])
        .counting("output.weight", &[266, 64]);
    let qwen2 = config(&qwen2).expect("a configuration");
    assert_eq!((qwen2.family, qwen2.qkv_bias, qwen2.head_norm, qwen2.tied_head), (Family::Qwen2, true, false, false));

    let qwen3 = as_architecture(small_llama(), "qwen3")
        .key("qwen3.attention.key_length", 48)
        .key("qwen3.attention.value_length", 48)
        .without("qwen3.rope.dimension_count")
        .counting("blk.0.attn_q_norm.weight", &[48]);
    let qwen3 = config(&qwen3).expect("a configuration");
    assert_eq!((qwen3.family, qwen3.qkv_bias, qwen3.head_norm), (Family::Qwen3, false, true));
    assert_eq!((qwen3.head_dim, qwen3.query_size(), qwen3.hidden_size), (48, 96, 64));
}

#[test]
fn missing_optional_keys_have_llama_cpps_defaults() {
    let writer = small_llama().without("llama.attention.head_count_kv").without("llama.rope.freq_base");
    // Without one, there are as many key-value heads as heads, and the tensors agree.
    let mut writer = writer;
    writer.tensors.retain(|tensor| !tensor.name.contains("attn_k"));
    let config = config(&writer).expect("a configuration");
    assert_eq!((config.kv_heads, config.rope_theta), (2, 10_000.0));
}

#[test]
fn one_value_per_layer_is_read_if_all_agree() {
    let same = small_llama().key("llama.feed_forward_length", Value::I32s(vec![96, 96]));
    assert_eq!(config(&same).expect("a configuration").feed_forward_size, 96);
    let different = small_llama().key("llama.feed_forward_length", Value::I32s(vec![96, 64]));
    assert_fault(&different, "llama.feed_forward_length", "differs between layers");
}

#[test]
fn rope_scaling_is_read() {
    let linear = small_llama().key("llama.rope.scaling.type", "linear").key("llama.rope.scaling.factor", 4.0);
    assert_eq!(config(&linear).expect("a configuration").rope_scaling, RopeScaling::Linear { factor: 4.0 });
    let untyped = small_llama().key("llama.rope.scale_linear", 2.0);
    assert_eq!(config(&untyped).expect("a configuration").rope_scaling, RopeScaling::Linear { factor: 2.0 });
    let one = small_llama().key("llama.rope.scaling.type", "linear").key("llama.rope.scaling.factor", 1.0);
    assert_eq!(config(&one).expect("a configuration").rope_scaling, RopeScaling::None);

    let bytes: Vec<u8> = (1..=16).flat_map(|factor| (factor as f32).to_le_bytes()).collect();
    let factors = small_llama().tensor("rope_freqs.weight", &[16], element::F32, bytes);
    let read = config(&factors).expect("a configuration");
    assert_eq!(read.rope_scaling, RopeScaling::Factors);
    assert_eq!(read.rope_factors, (1..=16).map(|factor| factor as f32).collect::<Vec<_>>());

    let both = factors.key("llama.rope.scaling.type", "linear").key("llama.rope.scaling.factor", 4.0);
    assert_fault(&both, "llama.rope.scaling.type", "rope_freqs.weight");
    let longrope = small_llama().key("llama.rope.scaling.type", "longrope").key("llama.rope.scaling.factor", 4.0);
    assert_fault(&longrope, "llama.rope.scaling.type", "\"longrope\" is not supported");
    let zero = small_llama().counting("rope_freqs.weight", &[16]);
    assert_fault(&zero, "rope_freqs.weight", "0 is not a positive number");
    let short = small_llama().counting("rope_freqs.weight", &[15]);
    assert!(matches!(config(&short), Err(Error::TensorShape { .. })));
    let long = small_llama().counting("rope_factors_long.weight", &[16]);
    assert_fault(&long, "rope_factors_long.weight", "not supported");
}

#[test]
fn yarn_is_read() {
    let writer = |keys: &[(&str, f32)]| {
        let yarn = small_llama()
            .key("llama.rope.scaling.type", "yarn")
            .key("llama.rope.scaling.factor", 4.0)
            .key("llama.rope.scaling.original_context_length", 96);
        keys.iter().fold(yarn, |writer, (name, value)| writer.key(&format!("llama.rope.scaling.{name}"), *value))
    };
    let yarn = |keys: &[(&str, f32)]| match config(&writer(keys)).expect("a configuration").rope_scaling {
        RopeScaling::Yarn(yarn) => yarn,
        other => panic!("{keys:?}: {other:?}"),
    };
    let plain = Yarn::new(4.0, 96.0);
    assert_eq!(yarn(&[]), plain);
    assert_eq!(config(&writer(&[])).expect("a configuration").context, 384);
    assert_eq!(yarn(&[("yarn_ext_factor", 1.0)]), plain);
    assert_eq!(yarn(&[("yarn_ext_factor", -1.0)]), plain);
    let betas = yarn(&[("yarn_beta_fast", 16.0), ("yarn_beta_slow", 2.0)]);
    assert_eq!(betas, Yarn { beta_fast: 16.0, beta_slow: 2.0, ..plain });
    assert_eq!(yarn(&[("yarn_attn_factor", 1.25)]).attention_factor, 1.25);
    assert_eq!(yarn(&[("attn_factor", 0.5)]).attention_factor, 0.5 * plain.attention_factor);
    assert_eq!(yarn(&[("yarn_log_multiplier", 1.0)]).attention_factor, 1.0);

    let faulty = |keys: &[(&str, f32)], name: &str, words: &str| {
        assert_fault(&writer(keys), &format!("llama.rope.scaling.{name}"), words);
    };
    faulty(&[("factor", 0.0)], "factor", "not a positive number");
    faulty(&[("original_context_length", -1.0)], "original_context_length", "not a positive number");
    faulty(&[("yarn_beta_fast", 0.5)], "yarn_beta_fast", "below beta_slow");
    faulty(&[("yarn_ext_factor", 0.5)], "yarn_ext_factor", "not supported");
    for key in ["factor", "original_context_length"] {
        let key = format!("llama.rope.scaling.{key}");
        assert_fault(&writer(&[]).without(&key), &key, "missing");
    }
}

#[test]
fn attention_windows_are_read() {
    let windows = |writer: &Writer| config(writer).expect("a configuration").sliding_window;
    let window = |tokens, layers: [bool; 2]| Some(SlidingWindow { tokens, layers: layers.to_vec() });
    let bools = |layers: [u8; 2]| {
        let count = 2u64.to_le_bytes();
        Value::Raw(9, [&7u32.to_le_bytes()[..], &count, &layers].concat())
    };
    let llama = |tokens: u32| small_llama().key("llama.attention.sliding_window", tokens);
    let pattern = "attention.sliding_window_pattern";
    assert_eq!(windows(&llama(0)), None);
    assert_eq!(windows(&llama(32)), window(32, [true, true]));
    let alternating = llama(32).key(&format!("llama.{pattern}"), bools([1, 0]));
    assert_eq!(windows(&alternating), window(32, [true, false]));
    assert_eq!(windows(&llama(32).key(&format!("llama.{pattern}"), bools([0, 0]))), None);

    let qwen2 = |writer: Writer| as_architecture(writer, "qwen2");
    assert_eq!(windows(&qwen2(alternating)), window(32, [true, false]));
    assert_eq!(windows(&qwen2(llama(128))), None);
    assert_fault(&qwen2(llama(32)), "qwen2.attention.sliding_window", "sliding_window_pattern");
    let one = Value::Raw(9, [&7u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[1]].concat());
    assert_fault(&llama(32).key(&format!("llama.{pattern}"), one), "layer_types", "1 entries for 2 layers");
    let integers = llama(32).key(&format!("llama.{pattern}"), Value::I32s(vec![1, 0]));
    assert_eq!(windows(&integers), window(32, [true, false]));
    let floats = Value::Raw(9, [&6u32.to_le_bytes()[..], &2u64.to_le_bytes(), &[0; 8]].concat());
    assert_fault(&llama(32).key(&format!("llama.{pattern}"), floats), &format!("llama.{pattern}"), "booleans");
}

#[test]
fn every_missing_or_wrong_key_is_named() {
    for key in [
        "llama.block_count",
        "llama.context_length",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.layer_norm_rms_epsilon",
    ] {
        assert_fault(&small_llama().without(key), key, "missing");
        assert_fault(&small_llama().key(key, "many"), key, "a string");
    }
    assert_fault(
        &small_llama().key("llama.block_count", Value::Raw(5, (-3i32).to_le_bytes().to_vec())),
        "llama.block_count",
        "negative",
    );
    assert_fault(&small_llama().key("llama.block_count", 0), "num_hidden_layers", "0");
    assert_fault(&small_llama().key("llama.rope.dimension_count", 16), "llama.rope.dimension_count", "16");
    assert_fault(&small_llama().key("llama.attention.value_length", 64), "llama.attention.value_length", "64");
    assert_fault(&small_llama().key("llama.expert_count", 8), "llama.expert_count", "experts");
    assert_fault(&small_llama().key("llama.embedding_length", 63), "llama.attention.head_count", "63");
}

#[test]
fn an_unknown_architecture_lists_the_known_ones() {
    let message = config(&as_architecture(small_llama(), "gpt2")).expect_err("a fault").to_string();
    assert!(message.contains("gpt2") && message.contains("qwen3"), "{message}");
}

fn assert_fault(writer: &Writer, field: &str, words: &str) {
    match config(writer) {
        Err(Error::Config { field: got, reason, .. }) => {
            assert_eq!(got, field, "{reason}");
            assert!(reason.contains(words), "{field}: {reason}");
        }
        other => panic!("{field}: {other:?}"),
    }
}
