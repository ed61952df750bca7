//! Hugging Face folders: config.json, and the folder as a whole.

use std::path::{Path, PathBuf};

use pard_engine::Error;
use pard_engine::model::ModelFiles;
use pard_engine::model::config::{Config, Family, RopeScaling};
use pard_engine::model::hugging_face::parse_config;
use pard_engine::text::{Message, Rendering};
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

fn parse(json: &Value) -> pard_engine::Result<Config> {
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
fn each_family_has_its_terms() {
    for (model_type, family, head_dim, qkv_bias, head_norm) in [
        ("llama", Family::Llama, 32, false, false),
        ("mistral", Family::Llama, 32, false, false),
        ("qwen2", Family::Qwen2, 32, true, false),
        ("qwen3", Family::Qwen3, 128, false, true),
    ] {
        let config = parsed(json!({"model_type": model_type}));
        let terms = (config.family, config.head_dim, config.qkv_bias, config.head_norm);
        assert_eq!(terms, (family, head_dim, qkv_bias, head_norm), "{model_type}");
    }
    let error = parse(&changed(json!({"model_type": "gpt2"}))).expect_err("not one of ours");
    assert!(error.to_string().contains("llama, mistral, qwen2, qwen3"), "{error}");
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
fn the_context_is_cut_to_an_attention_window_in_use() {
    for (changes, context) in [
        (json!({"sliding_window": 64}), 4096),
        (json!({"model_type": "mistral", "sliding_window": 64}), 64),
        (json!({"model_type": "mistral", "sliding_window": 8192}), 4096),
        (json!({"model_type": "mistral", "sliding_window": null}), 4096),
        (json!({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": false}), 4096),
        (json!({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": true, "max_window_layers": 1}), 64),
        (
            json!({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": true, "max_window_layers": 2}),
            4096,
        ),
        (json!({"model_type": "qwen3", "sliding_window": 64, "layer_types": ["full_attention"]}), 4096),
        (json!({"model_type": "qwen3", "sliding_window": 64, "layer_types": ["", "sliding_attention"]}), 64),
    ] {
        assert_eq!(parsed(changes.clone()).context, context, "{changes}");
    }
}

#[test]
fn the_mask_token_is_the_first_that_is_named() {
    assert_eq!(parsed(json!({"pard_token": 7, "mask_token_id": 8})).mask_token, Some(7));
    assert_eq!(parsed(json!({"pard_token": null, "ptd_token_id": 9, "mask_token_id": 8})).mask_token, Some(8));
    assert_eq!(parsed(json!({"ptd_token_id": 9})).mask_token, Some(9));
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
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "rope_scaling.rope_type"),
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
        (json!({"pard_token": 300}), "pard_token"),
        (json!({"pard_token": "<mask>"}), "pard_token"),
        (json!({"pard_token": 1u64 << 33}), "pard_token"),
        (json!({"model_type": "mistral", "sliding_window": 0}), "max_position_embeddings"),
        (json!({"layer_types": "all"}), "layer_types"),
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
        "llama|qwen3|linear|llama3|silu|.{0,4}".prop_map(Value::from),
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
    for recipe in Recipe::each_family(5) {
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
    ] {
        write_json(&config, &json!({"chat_template": template, "eos_token": content, "bos_token": null}));
        assert_eq!(rendered().expect("rendering"), expected);
    }
    for (template, named) in [
        (json!(null), "--raw"),
        (json!([named("a", "x"), named("b", "y")]), "default"),
        (json!(7), "chat_template"),
        (json!("{% if %}"), "compile"),
    ] {
        write_json(&config, &json!({ "chat_template": template }));
        let error = rendered().expect_err("no template");
        assert!(error.contains(named), "{template}: {error}");
    }
    // The file of its own wins.
    std::fs::write(folder.join("chat_template.jinja"), "file").expect("writing");
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
