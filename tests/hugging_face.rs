//! Hugging Face folders: config.json, and the folder as a whole.

use std::path::{Path, PathBuf};

use pard::Error;
use pard::checkpoint::ModelFiles;
use pard::checkpoint::config::{
    Config, Family, HiddenState, RopeScaling, SlidingWindow, StateForm, TargetLayers, Yarn,
};
use pard::checkpoint::hugging_face::parse_config;
use pard::text::{Message, Rendering};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::tiny_model::{Recipe, write_json};
use crate::support::tiny_tokenizer::{SPECIAL, special_id};

fn llama() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 96, "intermediate_size": 136, "num_hidden_layers": 2,
        "num_attention_heads": 3, "vocab_size": 300, "max_position_embeddings": 4096,
    })
}

/// `llama()` with the keys of `changes` set.
fn changed(changes: Value) -> Value {
    let mut json = llama();
    for (key, value) in changes.as_object().expect("an object") {
        json[key] = value.clone();
    }
    json
}

fn parse(json: &Value) -> pard::Result<Config> {
    parse_config(Path::new("folder/config.json"), json)
}

fn parsed(changes: Value) -> Config {
    parse(&changed(changes.clone())).unwrap_or_else(|error| panic!("{changes}: {error}"))
}

/// The key that is blamed for `json`.
fn blamed(json: &Value) -> String {
    match parse(json) {
        Err(Error::Config { field, path, .. }) if path.ends_with("config.json") => field,
        other => panic!("{json}: {other:?}"),
    }
}

#[test]
fn absent_keys_take_the_defaults_of_transformers() {
    let config = parsed(json!({}));
    assert_eq!((config.kv_heads, config.head_dim), (3, 32));
    assert_eq!((config.norm_epsilon, config.rope_theta), (1e-6, 10_000.0));
    assert_eq!((config.rope_scaling, config.mask_token), (RopeScaling::None, None));
    assert!(!config.tied_head && !config.qkv_bias && !config.head_norm);
    let null = json!({"num_key_value_heads": null, "head_dim": null, "rope_scaling": null, "pard_token": null});
    assert_eq!(parsed(null), config);
}

#[test]
fn keys_of_other_families_are_no_fault_where_they_are_without_effect() {
    let without_effect = json!({
        "is_causal": true, "final_logit_softcapping": null, "attn_logit_softcapping": 0, "logit_scale": 1.0,
        "embedding_multiplier": 1, "no_rope_layers": [1, 1], "use_bidirectional_attention": false, "dtype": "bfloat16",
    });
    assert_eq!(parsed(without_effect), parsed(json!({})));
}

#[test]
fn experts_are_counted_by_their_old_name_and_their_new_one() {
    let count = |changes: Value| parsed(changes).experts.expect("experts").count;
    assert_eq!(count(json!({"model_type": "qwen3_moe", "num_experts": 16})), 16);
    assert_eq!(count(json!({"model_type": "qwen3_moe", "num_local_experts": 32})), 32);
    assert_eq!(count(json!({"model_type": "qwen3_moe"})), 128);
}

#[test]
fn each_family_has_its_terms() {
    for (model_type, family, head_dim, qkv_bias, head_norm) in [
        ("llama", Family::Llama, 32, false, false),
        ("mistral", Family::Mistral, 32, false, false),
        ("qwen2", Family::Qwen2, 32, true, false),
        ("qwen3", Family::Qwen3, 128, false, true),
        ("qwen3_moe", Family::Qwen3Moe, 32, false, true),
    ] {
        let config = parsed(json!({"model_type": model_type}));
        let terms = (config.family, config.head_dim, config.qkv_bias, config.head_norm);
        assert_eq!(terms, (family, head_dim, qkv_bias, head_norm), "{model_type}");
    }
    let error = parse(&changed(json!({"model_type": "gpt2"}))).expect_err("not one of ours");
    assert!(error.to_string().contains("llama, mistral, qwen2, qwen3, qwen3_moe"), "{error}");
}

#[test]
fn rope_is_read_from_old_and_new_files() {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let expected =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192.0 };
    let old = parsed(json!({"rope_theta": 5e5, "rope_scaling": llama3}));
    assert_eq!((old.rope_theta, old.rope_scaling), (5e5, expected));
    let mut newer = llama3;
    newer["rope_theta"] = json!(5e5);
    assert_eq!(parsed(json!({"rope_parameters": newer})), old);

    let linear = parsed(json!({"rope_scaling": {"type": "linear", "factor": 4}}));
    assert_eq!(linear.rope_scaling, RopeScaling::Linear { factor: 4.0 });
    for none in [json!({"rope_type": "default"}), json!({}), json!({"type": "default", "rope_theta": 2.0})] {
        assert_eq!(parsed(json!({"rope_scaling": none})).rope_scaling, RopeScaling::None);
    }
}

#[test]
fn of_old_and_new_scalings_side_by_side_the_old_one_counts() {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    let stretched = RopeScaling::Yarn(Yarn::new(4.0, 64.0));
    let plain = json!({"rope_theta": 1e6, "rope_type": "default"});
    let with_base =
        json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e6});
    for (changes, theta) in [
        (json!({"rope_theta": 1e6, "rope_parameters": plain, "rope_scaling": yarn}), 1e6),
        (json!({"rope_parameters": plain, "rope_scaling": with_base}), 1e6),
        (json!({"rope_theta": 5e5, "rope_parameters": plain, "rope_scaling": with_base}), 1e6),
    ] {
        let config = parsed(changes);
        assert_eq!((config.rope_theta, config.rope_scaling), (theta, stretched));
    }
    for none in [json!({}), json!(null)] {
        let config = parsed(json!({"rope_parameters": plain, "rope_scaling": none}));
        assert_eq!((config.rope_theta, config.rope_scaling), (1e6, RopeScaling::None));
    }
    // transformers prefers the original context at the top, and takes the whole one where there is none.
    let original = |changes: Value| match parsed(changes).rope_scaling {
        RopeScaling::Yarn(yarn) => yarn.original_context,
        other => panic!("{other:?}"),
    };
    assert_eq!(original(json!({"original_max_position_embeddings": 32, "rope_scaling": yarn})), 32.0);
    assert_eq!(original(json!({"rope_scaling": {"type": "yarn", "factor": 2.0}})), 4096.0);
    let kinds = json!({"full_attention": {"rope_type": "default", "rope_theta": 1e6}});
    for (changes, key) in [
        (json!({"rope_parameters": plain, "rope_scaling": yarn}), "rope_parameters.rope_theta"),
        (json!({"rope_parameters": kinds}), "rope_parameters.full_attention"),
        (
            json!({"rope_scaling": {"type": "default", "partial_rotary_factor": 0.5}}),
            "rope_scaling.partial_rotary_factor",
        ),
    ] {
        assert_eq!(blamed(&changed(changes.clone())), key, "{changes}");
    }
}

#[test]
fn sentinels_of_configurations_mean_what_their_writers_mean() {
    let plain = parsed(json!({}));
    for none in [json!(-1), json!(-1.0), json!(null)] {
        assert_eq!(parsed(json!({"pard_token": none})), plain);
        assert_eq!(parsed(json!({"mask_token_id": none, "ptd_token_id": none})), plain);
    }
    assert_eq!(parsed(json!({"pard_token": -1, "mask_token_id": 7.0})).mask_token, Some(7));
    assert_eq!(parsed(json!({"vocab_size": 300.0, "max_position_embeddings": 4096.0})), plain);
    let (_parent, folder) = written(&Recipe::llama(1), "tiny");
    let config = folder.join("config.json");
    let text = std::fs::read_to_string(&config).expect("reading");
    let with = |more: &str| {
        std::fs::write(&config, text.replacen('{', &format!("{{ {more},"), 1)).expect("writing");
        ModelFiles::open(&folder).map(|files| files.config).map_err(|error| error.to_string())
    };
    let known = with(r#""x": 1"#).expect("a configuration");
    // Python writes such numbers. Nothing here reads these, and no text is mistaken for one.
    assert_eq!(
        with(r#""time_step_limit": [0.0, Infinity, -Infinity], "loss": NaN, "\"NaN": "NaN, Infinity""#),
        Ok(known)
    );
    let error = with(r#""partial_rotary_factor": NaN"#).expect_err("no factor");
    assert!(error.contains("partial_rotary_factor") && error.contains("NaN"), "{error}");
    let stop = |value: Value| {
        write_json(&folder.join("generation_config.json"), &json!({ "eos_token_id": value }));
        std::fs::write(&config, &text).expect("writing");
        ModelFiles::open(&folder).expect("opening").text.stop_tokens
    };
    assert_eq!(stop(json!([9.0, -1, null])), [9, special_id(2)]);
    assert_eq!(stop(json!(-1)), stop(json!(null)));
}

#[test]
fn yarn_is_read_as_qwen_ships_it() {
    let given = |changes: Value| {
        let mut scaling = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768});
        for (key, value) in changes.as_object().expect("an object") {
            scaling[key] = value.clone();
        }
        json!({"rope_theta": 1e6, "max_position_embeddings": 40960, "rope_scaling": scaling})
    };
    let yarn = |changes: Value| match parsed(given(changes.clone())).rope_scaling {
        RopeScaling::Yarn(yarn) => yarn,
        other => panic!("{changes}: {other:?}"),
    };
    let plain = Yarn::new(4.0, 32768.0);
    assert_eq!((plain.beta_fast, plain.beta_slow, plain.truncate), (32.0, 1.0, true));
    let config = parsed(given(json!({})));
    assert_eq!((config.rope_scaling, config.context), (RopeScaling::Yarn(plain), 131_072));
    assert_eq!(yarn(json!({"rope_type": null, "type": "yarn"})), plain);
    assert_eq!(yarn(json!({"beta_fast": null, "attention_factor": null, "truncate": null})), plain);
    let all = json!({"beta_fast": 16, "beta_slow": 2, "attention_factor": 0.5, "truncate": false});
    let expected = Yarn { beta_fast: 16.0, beta_slow: 2.0, attention_factor: 0.5, truncate: false, ..plain };
    assert_eq!(yarn(all), expected);
    // DeepSeek's pair of scales, which counts only if both are there.
    let both = yarn(json!({"mscale": 1.0, "mscale_all_dim": 0.5}));
    assert_eq!(both.attention_factor, Yarn::magnitude(4.0, 1.0) / Yarn::magnitude(4.0, 0.5));
    assert_eq!(yarn(json!({"mscale": 0.7})), plain);
    // The newer form, and the original context beside it.
    let newer = json!({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6});
    let newer = parsed(json!({"rope_parameters": newer, "original_max_position_embeddings": 32768}));
    assert_eq!((newer.rope_scaling, newer.rope_theta), (RopeScaling::Yarn(plain), 1e6));

    for (changes, key) in [
        (json!({"factor": 0}), "factor"),
        (json!({"factor": -4.0}), "factor"),
        (json!({"factor": "4"}), "factor"),
        (json!({"factor": null}), "factor"),
        (json!({"original_max_position_embeddings": 0}), "original_max_position_embeddings"),
        (json!({"beta_fast": 0}), "beta_fast"),
        (json!({"beta_fast": 1, "beta_slow": 2}), "beta_fast"),
        (json!({"beta_slow": -1}), "beta_slow"),
        (json!({"attention_factor": 0}), "attention_factor"),
        (json!({"mscale": -100, "mscale_all_dim": 1}), "attention_factor"),
        (json!({"truncate": 1}), "truncate"),
    ] {
        assert_eq!(blamed(&changed(given(changes.clone()))), format!("rope_scaling.{key}"), "{changes}");
    }
    assert_eq!(blamed(&changed(given(json!({"factor": 1e6})))), "max_position_embeddings");
}

#[test]
fn attention_windows_are_those_of_transformers() {
    let window = |tokens, layers: [bool; 2]| Some(SlidingWindow { tokens, layers: layers.to_vec() });
    let qwen = |changes: Value| {
        let mut json = json!({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": true});
        for (key, value) in changes.as_object().expect("an object") {
            json[key] = value.clone();
        }
        json
    };
    let types = |first: &str, second: &str| json!([format!("{first}_attention"), format!("{second}_attention")]);
    for (changes, expected) in [
        (json!({"sliding_window": 64}), None),
        (json!({"model_type": "mistral", "sliding_window": 64}), window(64, [true, true])),
        (json!({"model_type": "mistral", "sliding_window": 8192}), window(8192, [true, true])),
        (json!({"model_type": "mistral", "sliding_window": null}), None),
        (json!({"model_type": "mistral"}), window(4096, [true, true])),
        (qwen(json!({"use_sliding_window": false})), None),
        (qwen(json!({"max_window_layers": 0})), window(64, [true, true])),
        (qwen(json!({"max_window_layers": 1})), window(64, [false, true])),
        (qwen(json!({"max_window_layers": 2})), None),
        (qwen(json!({})), None),
        (qwen(json!({"sliding_window": null, "max_window_layers": 0})), None),
        (qwen(json!({"model_type": "qwen3", "layer_types": types("full", "full")})), None),
        (qwen(json!({"model_type": "qwen3", "layer_types": types("sliding", "full")})), window(64, [true, false])),
        (qwen(json!({"max_window_layers": 0, "layer_types": types("full", "sliding")})), window(64, [false, true])),
        (qwen(json!({"use_sliding_window": false, "layer_types": types("full", "sliding")})), None),
    ] {
        let config = parsed(changes.clone());
        assert_eq!((config.sliding_window, config.context), (expected, 4096), "{changes}");
    }
    let config = parsed(qwen(json!({"max_window_layers": 1})));
    assert_eq!([0, 1, 2].map(|layer| config.window(layer)), [None, Some(64), None]);
    assert_eq!(
        config.of_layers(&[1, 0, 1]).sliding_window,
        Some(SlidingWindow { tokens: 64, layers: vec![true, false, true] })
    );
    assert_eq!(config.of_layers(&[0]).sliding_window, None);
}

#[test]
fn the_mask_token_is_the_first_that_is_named() {
    assert_eq!(parsed(json!({"pard_token": 7, "mask_token_id": 8})).mask_token, Some(7));
    assert_eq!(parsed(json!({"pard_token": null, "ptd_token_id": 9, "mask_token_id": 8})).mask_token, Some(8));
    assert_eq!(parsed(json!({"ptd_token_id": 9})).mask_token, Some(9));
    // Trainers without a mask token write -1.
    assert_eq!(parsed(json!({"pard_token": -1})).mask_token, None);
}

#[test]
fn a_draft_may_name_the_states_that_it_reads() {
    let read = |changes| parsed(changes).target_layers;
    assert_eq!(read(json!({})), None);
    let former =
        TargetLayers { layers: vec![0, 3, 9], hidden_size: 64, scale: 1.0, bias: false, form: StateForm::Normalised };
    assert_eq!(read(json!({"target_layers": [0, 3, 9], "target_hidden_size": 64})), Some(former));
    // Beside PARD-2's keys that one means nothing, and neither do those without a mark of PARD-2.
    assert_eq!(read(json!({"pard2": true, "target_layers": [0], "target_hidden_size": 64})), None);
    assert_eq!(read(json!({"pard2_target_layers": [-1]})), None);
    let usual = TargetLayers { layers: vec![-1], hidden_size: 4096, scale: 0.02, bias: false, form: StateForm::Pard2 };
    assert_eq!(read(json!({"spd_type": "pard2", "pard2_target_layers": [-1]})), Some(usual.clone()));
    let keys = json!({
        "pard2": true, "pard2_target_layers": [-1, -8, 3], "pard2_target_dim": 192, "pard2_scale": 0.5,
        "pard2_proj_bias": true, "feat_scale": 3, "pard_target_dim": 8, "proj_bias": false,
    });
    let all = TargetLayers { layers: vec![-1, -8, 3], hidden_size: 64, scale: 0.5, bias: true, ..usual.clone() };
    assert_eq!(read(keys), Some(all));
    let aliases = json!({
        "pard2": true, "pard2_target_layers": [-1], "pard_target_dim": 64, "feat_scale": 0.25, "proj_bias": true,
    });
    assert_eq!(read(aliases.clone()), Some(TargetLayers { hidden_size: 64, scale: 0.25, bias: true, ..usual.clone() }));
    let mut both = aliases;
    both["pard_scale"] = json!(0.125);
    assert_eq!(read(both).map(|target| target.scale), Some(0.125));
}

#[test]
fn states_are_counted_from_either_end() {
    let of =
        |layers: &[i32], form| TargetLayers { layers: layers.to_vec(), hidden_size: 64, scale: 1.0, bias: false, form };
    let (after, normed) = (HiddenState::After, HiddenState::Normed);
    let read = |layers: &[i32]| of(layers, StateForm::Pard2).states(36);
    assert_eq!(read(&[-1, -8, -16, -24]), Ok(vec![normed, after(29), after(21), after(13)]));
    assert_eq!(read(&[0, 1, 35, 36, -37]), Ok(vec![after(0), after(1), after(35), normed, after(0)]));
    assert_eq!((read(&[2, 37]), read(&[-38]), read(&[i32::MIN])), (Err(37), Err(-38), Err(i32::MIN)));
    let former = |layers: &[i32]| of(layers, StateForm::Normalised).states(3);
    assert_eq!((former(&[0, 2]), former(&[3]), former(&[-1])), (Ok(vec![after(1), after(3)]), Err(3), Err(-1)));
}

#[test]
fn what_is_wrong_or_not_supported_is_named() {
    for key in [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
    ] {
        for bad in
            [json!(null), json!(0), json!(-1), json!(1.5), json!("96"), json!([96]), json!(u64::MAX), json!(3u64 << 40)]
        {
            assert_eq!(blamed(&changed(json!({ key: bad.clone() }))), key, "{bad}");
        }
    }
    for (changes, key) in [
        (json!({"model_type": null}), "model_type"),
        (json!({"model_type": 3}), "model_type"),
        (json!({"num_key_value_heads": 2}), "num_key_value_heads"),
        (json!({"num_key_value_heads": 0}), "num_key_value_heads"),
        (json!({"num_attention_heads": 7}), "num_attention_heads"),
        (json!({"head_dim": 33}), "head_dim"),
        (json!({"head_dim": "64"}), "head_dim"),
        (json!({"rms_norm_eps": "1e-6"}), "rms_norm_eps"),
        (json!({"rms_norm_eps": 0}), "rms_norm_eps"),
        (json!({"rope_theta": 0}), "rope_theta"),
        (json!({"rope_theta": {}}), "rope_theta"),
        (json!({"rope_scaling": "linear"}), "rope_scaling"),
        (json!({"rope_scaling": {"type": "dynamic", "factor": 4.0}}), "rope_scaling.rope_type"),
        (json!({"rope_scaling": {"rope_type": 3}}), "rope_scaling.rope_type"),
        (json!({"rope_scaling": {"rope_type": "linear"}}), "rope_scaling.factor"),
        (json!({"rope_scaling": {"rope_type": "linear", "factor": -1}}), "rope_scaling.factor"),
        (json!({"rope_parameters": {"rope_type": "longrope"}}), "rope_parameters.rope_type"),
        (json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), "rope_parameters.partial_rotary_factor"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (json!({"attention_bias": true}), "attention_bias"),
        (json!({"mlp_bias": true}), "mlp_bias"),
        (json!({"mlp_bias": "no"}), "mlp_bias"),
        (json!({"hidden_act": "gelu"}), "hidden_act"),
        (json!({"tie_word_embeddings": 1}), "tie_word_embeddings"),
        (json!({"quantization_config": {"quant_method": "awq"}}), "quantization_config"),
        (json!({"quantization": {"group_size": 64, "bits": 4}}), "quantization"),
        (json!({"is_causal": false}), "is_causal"),
        (json!({"use_bidirectional_attention": true}), "use_bidirectional_attention"),
        (json!({"final_logit_softcapping": 30.0}), "final_logit_softcapping"),
        (json!({"attention_multiplier": 0.0625}), "attention_multiplier"),
        (json!({"logit_scale": 0.5}), "logit_scale"),
        (json!({"no_rope_layers": [1, 0]}), "no_rope_layers"),
        (json!({"pard_token": 300}), "pard_token"),
        (json!({"pard_token": "<mask>"}), "pard_token"),
        (json!({"pard_token": 1u64 << 33}), "pard_token"),
        (json!({"target_layers": [1]}), "target_hidden_size"),
        (json!({"target_layers": [1], "target_hidden_size": 0}), "target_hidden_size"),
        (json!({"target_layers": [1], "target_hidden_size": 12}), "target_hidden_size"),
        (json!({"target_layers": [1], "target_hidden_size": 1u64 << 40}), "target_hidden_size"),
        (json!({"target_layers": [], "target_hidden_size": 64}), "target_layers"),
        (json!({"target_layers": [2, 1], "target_hidden_size": 64}), "target_layers"),
        (json!({"pard2": true, "pard2_target_layers": []}), "pard2_target_layers"),
        (json!({"pard2": true, "pard2_target_layers": [-1, -2, -3]}), "pard2_target_dim"),
        (json!({"pard2": true, "pard2_target_layers": [-1], "pard2_target_dim": 12}), "pard2_target_dim"),
        (json!({"pard2": true, "pard2_target_layers": [-1], "pard_target_dim": "64"}), "pard_target_dim"),
        (json!({"pard2": true, "pard2_target_layers": [1.5]}), "pard2_target_layers"),
        (json!({"pard2": true, "pard2_target_layers": -1}), "pard2_target_layers"),
        (json!({"pard2": true, "pard2_target_layers": [-1], "pard2_scale": "0.02"}), "pard2_scale"),
        (json!({"pard2": 1}), "pard2"),
        (json!({"target_layers": 3, "target_hidden_size": 64}), "target_layers"),
        (json!({"model_type": "mistral", "sliding_window": 0}), "sliding_window"),
        (json!({"model_type": "mistral", "layer_types": "all"}), "layer_types"),
        (json!({"model_type": "qwen3", "layer_types": ["full_attention"]}), "layer_types"),
        (json!({"model_type": "qwen3", "layer_types": ["full_attention", "linear_attention"]}), "layer_types"),
    ] {
        assert_eq!(blamed(&changed(changes.clone())), key, "{changes}");
    }
    let scaling = json!({
        "rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
        "original_max_position_embeddings": 8,
    });
    assert_eq!(blamed(&changed(json!({ "rope_scaling": scaling }))), "rope_scaling.high_freq_factor");
    assert!(matches!(parse(&json!([1])), Err(Error::Damaged { .. })));
}

/// JSON of any shape, with numbers that break sums.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = any_scalar();
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{1,8}", inner, 0..4).prop_map(Value::from_iter),
        ]
    })
}

fn any_scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..300u64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "llama|qwen3|linear|llama3|yarn|silu|.{0,4}".prop_map(Value::from),
    ]
}

proptest! {
    #[test]
    fn no_config_panics(changes in prop::collection::hash_map(
        "model_type|hidden_size|intermediate_size|num_hidden_layers|num_attention_heads|num_key_value_heads|head_dim|\
         vocab_size|max_position_embeddings|rms_norm_eps|rope_theta|rope_scaling|rope_parameters|sliding_window|\
         layer_types|pard_token|tie_word_embeddings|hidden_act|attention_bias|max_window_layers|use_sliding_window",
        any_json(), 0..4,
    )) {
        if let Ok(config) = parse(&changed(Value::from_iter(changes))) {
            prop_assert!(config.heads % config.kv_heads == 0 && config.layers > 0);
        }
    }
}

/// A folder of the recipe, in a folder of this name.
fn written(recipe: &Recipe, name: &str) -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    recipe.write(&folder);
    (parent, folder)
}

#[test]
fn a_folder_of_each_family_opens() {
    let others = [Recipe::stretched(5), Recipe::mistral(5), Recipe::partly_windowed(5)];
    for recipe in Recipe::each_family(5).into_iter().chain(others) {
        let (_parent, folder) = written(&recipe, "tiny");
        let files = ModelFiles::open(&folder).expect("opening");
        assert_eq!(files.config, recipe.config);
        assert_eq!((files.name(), &files.path), ("tiny", &folder));
        assert_eq!(files.text.stop_tokens, [special_id(0), special_id(2)]);
        let prompt = files
            .text
            .chat_template()
            .expect("a template")
            .render(&[Message::new("user", "the")], Rendering::default());
        assert_eq!(prompt.expect("rendering"), "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\n");
        assert!(files.checkpoint.find("model.norm.weight").is_some());
    }
}

#[test]
fn a_folder_of_the_hubs_cache_is_called_as_its_repository() {
    let (_parent, folder) = written(&Recipe::qwen2(1), "models--some--Tiny-model/snapshots/0123");
    assert_eq!(ModelFiles::open(&folder).expect("opening").name(), "some/Tiny-model");
}

#[test]
fn stop_tokens_come_from_generation_config_then_config_and_the_tokenizer() {
    let (_parent, folder) = written(&Recipe::llama(1), "tiny");
    let stop_tokens = || ModelFiles::open(&folder).expect("opening").text.stop_tokens;
    let generation = folder.join("generation_config.json");
    write_json(&generation, &json!({"eos_token_id": 9}));
    assert_eq!(stop_tokens(), [9, special_id(2)]);
    write_json(&generation, &json!({}));
    assert_eq!(stop_tokens(), [special_id(2)]);
    std::fs::remove_file(folder.join("tokenizer_config.json")).expect("removing");
    assert_eq!(stop_tokens(), [special_id(2)], "config.json names it too");
    write_json(&generation, &json!({"eos_token_id": [1, "two"]}));
    let error = ModelFiles::open(&folder).err().expect("not a token");
    assert!(
        matches!(&error, Error::Config { field, path, .. } if field == "eos_token_id" && *path == generation),
        "{error}"
    );
}

#[test]
fn settings_that_generation_config_suggests_are_told() {
    let suggested = |generation: Value| {
        let (_parent, path) = written(&Recipe::llama(9), "settings");
        write_json(&path.join("generation_config.json"), &generation);
        ModelFiles::open(&path).expect("opening").text.suggested
    };
    let drawn = json!({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 1.0, "min_p": null});
    assert_eq!(suggested(drawn), ["temperature 0.6", "top_k 20"]);
    let all = json!({"do_sample": false, "temperature": 0.6, "repetition_penalty": 1.1, "suppress_tokens": [3],
        "bad_words_ids": [], "num_beams": 1, "forced_eos_token_id": null, "stop_strings": ["a"]});
    assert_eq!(suggested(all), ["repetition_penalty 1.1", "suppress_tokens [3]", "stop_strings [\"a\"]"]);
    assert!(suggested(json!({"eos_token_id": 1, "max_length": 40, "num_beams": 1.0})).is_empty());
}

#[test]
fn the_template_is_found_wherever_it_is_kept() {
    let (_parent, folder) = written(&Recipe::llama(1), "tiny");
    let config = folder.join("tokenizer_config.json");
    let rendered = || -> Result<String, String> {
        let files = ModelFiles::open(&folder).map_err(|error| error.to_string())?;
        let template = files.text.chat_template().map_err(|error| error.to_string())?;
        template.render(&[], Rendering::default()).map_err(|error| error.to_string())
    };
    let named = |name: &str, template: &str| json!({"name": name, "template": template});
    let content = json!({"content": SPECIAL[2], "lstrip": false});
    for (template, expected) in [
        (json!("one {{ eos_token }}"), "one <|im_end|>"),
        (json!([named("tool_use", "two"), named("default", "three")]), "three"),
        (json!([named("only", "four")]), "four"),
        (json!({"default": "five", "rag": "six"}), "five"),
    ] {
        write_json(&config, &json!({"chat_template": template, "eos_token": content, "bos_token": null}));
        assert_eq!(rendered().expect("rendering"), expected);
    }
    for (template, named) in [
        (json!(null), "continue text"),
        (json!(""), "continue text"),
        (json!({"rag": "x"}), "default"),
        (json!([named("a", "x"), named("b", "y")]), "default"),
        (json!(7), "chat_template"),
        (json!("{% if %}"), "compile"),
    ] {
        write_json(&config, &json!({ "chat_template": template }));
        let error = rendered().expect_err("no template");
        assert!(error.contains(named), "{template}: {error}");
    }
    // A processor's file is the last to be asked, and a file of its own wins.
    write_json(&folder.join("chat_template.json"), &json!({"chat_template": "processor"}));
    assert!(rendered().expect_err("no template").contains("compile"));
    std::fs::remove_file(&config).expect("removing");
    assert_eq!(rendered().expect("rendering"), "processor");
    std::fs::write(folder.join("chat_template.jinja"), "\u{feff}file").expect("writing");
    assert_eq!(rendered().expect("rendering"), "file");
}

#[test]
fn a_folder_that_lacks_something_says_what() {
    for (file, named) in
        [("config.json", "config.json"), ("tokenizer.json", "tokenizer.json"), ("model.safetensors", "*.safetensors")]
    {
        let (_parent, folder) = written(&Recipe::llama(1), "tiny");
        std::fs::remove_file(folder.join(file)).expect("removing");
        let error = ModelFiles::open(&folder).err().expect("something is missing");
        assert!(matches!(error, Error::NoModel { .. }) && error.to_string().contains(named), "{error}");
    }
    let (_parent, folder) = written(&Recipe::llama(1), "tiny");
    std::fs::write(folder.join("config.json"), "{ not json").expect("writing");
    assert!(matches!(ModelFiles::open(&folder), Err(Error::Damaged { path, .. }) if path.ends_with("config.json")));
    // A tokenizer of a larger model.
    let (_parent, folder) = written(&Recipe::llama(1), "tiny");
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).expect("reading")).expect("JSON");
    config["vocab_size"] = json!(100);
    write_json(&folder.join("config.json"), &config);
    assert!(matches!(ModelFiles::open(&folder), Err(Error::Tokenizer { .. })));
}
