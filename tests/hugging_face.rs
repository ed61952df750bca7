//! Hugging Face folders: config.json, safetensors, and the folder as a whole.

use std::path::{Path, PathBuf};

use pard_engine::Error;
use pard_engine::model::ModelFiles;
use pard_engine::model::checkpoint::{Checkpoint, StoredType};
use pard_engine::model::config::{Config, Family, RopeScaling};
use pard_engine::model::hugging_face::parse_config;
use pard_engine::model::safetensors::Safetensors;
use pard_engine::text::{Message, Rendering};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
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
        (
            json!({"model_type": "qwen3", "sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]}),
            64,
        ),
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
    let scaling = json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4, "original_max_position_embeddings": 8});
    assert_eq!(blamed(&changed(json!({ "rope_scaling": scaling }))), "rope_scaling.high_freq_factor");
    assert!(matches!(parse(&json!([1])), Err(Error::Damaged { .. })));
}

/// JSON of any shape, with numbers that break sums.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = any_scalar();
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{1,8}", inner, 0..4).prop_map(|map| Value::from_iter(map)),
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

/// A tensor for a test file: its name, type, shape and bytes.
type Raw<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

fn serialised(tensors: &[Raw]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("a shape of this length"))
    });
    safetensors::serialize(views, None).expect("serialising")
}

/// A folder with the given files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("writing");
    }
    folder
}

fn fault_of(files: &[(&str, &[u8])]) -> String {
    let folder = folder(files);
    match Safetensors::open(folder.path()) {
        Err(error @ (Error::Damaged { .. } | Error::NoModel { .. } | Error::Config { .. })) => error.to_string(),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("opened"),
    }
}

/// Numbers that BF16, F16 and F32 all hold.
const EXACT: [f32; 6] = [0.0, -1.5, 2.0, 0.25, -65280.0, 1024.0];

fn stored(dtype: Dtype) -> Vec<u8> {
    let bytes = |value: f32| match dtype {
        Dtype::BF16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
        Dtype::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    };
    EXACT.into_iter().flat_map(bytes).collect()
}

#[test]
fn every_type_widens_exactly_wherever_it_lies() {
    // One odd byte first in the file, so that nothing after it is aligned.
    let mut bytes = br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#.to_vec();
    let mut data = vec![7];
    for (name, dtype, dtype_name) in [("b", Dtype::BF16, "BF16"), ("c", Dtype::F16, "F16"), ("d", Dtype::F32, "F32")] {
        let values = stored(dtype);
        let end = data.len() + values.len();
        bytes.extend(
            format!(r#","{name}":{{"dtype":"{dtype_name}","shape":[3,2],"data_offsets":[{},{end}]}}"#, data.len())
                .bytes(),
        );
        data.extend(values);
    }
    bytes.push(b'}');
    let file: Vec<u8> = (bytes.len() as u64).to_le_bytes().into_iter().chain(bytes).chain(data).collect();
    let folder = folder(&[("model.safetensors", &file)]);
    let checkpoint = Safetensors::open(folder.path()).expect("opening");
    let names: Vec<&str> = checkpoint.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "d"]);
    for (name, stored) in [("b", StoredType::Bf16), ("c", StoredType::F16), ("d", StoredType::F32)] {
        assert_eq!(checkpoint.expect(name, &[3, 2]).expect("a tensor").stored, stored);
        for rows in [0..3, 1..2, 2..3, 0..0, 3..3] {
            let mut out = vec![f32::NAN; rows.len() * 2];
            checkpoint.read_rows(name, rows.clone(), &mut out).expect("reading");
            assert_eq!(out, EXACT[rows.start * 2..rows.end * 2], "{name} {rows:?}");
        }
        #[expect(clippy::reversed_empty_ranges)]
        for rows in [0..4, 4..4, 2..1, 0..usize::MAX] {
            assert!(matches!(checkpoint.read_rows(name, rows, &mut []), Err(Error::Damaged { .. })));
        }
        assert!(matches!(checkpoint.read_rows(name, 0..1, &mut [0.0; 3]), Err(Error::Shape { .. })));
    }
}

#[test]
fn a_vector_is_one_row_and_shapes_and_names_are_checked() {
    let file =
        serialised(&[("norm", Dtype::F32, vec![6], stored(Dtype::F32)), ("one", Dtype::F32, vec![], vec![0; 4])]);
    let folder = folder(&[("model.safetensors", &file)]);
    let checkpoint = Safetensors::open(folder.path()).expect("opening");
    assert_eq!(checkpoint.read_vector("norm", 6).expect("reading"), EXACT);
    checkpoint.read_rows("one", 0..1, &mut [1.0]).expect("a scalar");
    let error = checkpoint.read_vector("norm", 7).expect_err("too long");
    assert!(matches!(&error, Error::TensorShape { got, expected, .. } if got == &[6] && expected == &[7]), "{error}");
    assert!(matches!(checkpoint.read_vector("nor", 6), Err(Error::MissingTensor { name, .. }) if name == "nor"));
}

#[test]
fn a_tensor_of_another_type_harms_only_who_asks_for_it() {
    let file = serialised(&[("ids", Dtype::I64, vec![1], vec![0; 8]), ("w", Dtype::F32, vec![6], stored(Dtype::F32))]);
    let folder = folder(&[("model.safetensors", &file)]);
    let checkpoint = Safetensors::open(folder.path()).expect("opening");
    checkpoint.read_vector("w", 6).expect("the other tensor");
    assert!(checkpoint.find("ids").is_none());
    for result in [checkpoint.expect("ids", &[1]).map(drop), checkpoint.read_rows("ids", 0..1, &mut [0.0])] {
        let error = result.expect_err("a type we do not read");
        assert!(matches!(&error, Error::TensorType { got, .. } if got == "I64"), "{error}");
    }
}

#[test]
fn shards_are_read_through_the_index() {
    let whole = tempfile::tempdir().expect("a folder");
    let parts = tempfile::tempdir().expect("a folder");
    let recipe = Recipe { shards: 1, ..Recipe::qwen3(3) };
    let tensors = recipe.write(whole.path());
    Recipe { shards: 3, ..recipe }.write(parts.path());
    let (whole, sharded) =
        (Safetensors::open(whole.path()).expect("one file"), Safetensors::open(parts.path()).expect("three"));
    assert_eq!(whole.tensors(), sharded.tensors());
    for (name, tensor) in &tensors {
        let mut out = vec![0.0; tensor.values.len()];
        let rows = if tensor.shape.len() == 1 { 1 } else { tensor.shape[0] };
        sharded.read_rows(name, 0..rows, &mut out).expect("reading");
        assert_eq!(out, tensor.values, "{name}");
    }
    // Without an index, every file counts.
    std::fs::remove_file(parts.path().join("model.safetensors.index.json")).expect("removing");
    assert_eq!(Safetensors::open(parts.path()).expect("no index").tensors(), whole.tensors());
}

#[test]
fn an_index_that_does_not_hold_is_refused() {
    let file = serialised(&[("w", Dtype::F32, vec![6], stored(Dtype::F32))]);
    let with_index = |index: Value| {
        let index = index.to_string();
        fault_of(&[("part.safetensors", &file), ("model.safetensors.index.json", index.as_bytes())])
    };
    assert!(with_index(json!({"weight_map": {"w": "gone.safetensors"}})).contains("gone.safetensors"));
    assert!(with_index(json!({"weight_map": {"w": "part.safetensors", "v": "part.safetensors"}})).contains("\"v\""));
    for outside in
        ["../part.safetensors", "/etc/passwd", "a/../../b", "..", "", ".", "C:\\x", "..\\part.safetensors", "C:x"]
    {
        let message = with_index(json!({"weight_map": {"w": outside}}));
        assert!(message.contains("outside the folder"), "{outside}: {message}");
    }
    for (index, named) in [
        (json!({}), "weight_map"),
        (json!({"weight_map": []}), "weight_map"),
        (json!({"weight_map": {}}), "weight_map"),
        (json!({"weight_map": {"w": 3}}), "weight_map.w"),
        (json!(3), "index.json"),
    ] {
        assert!(with_index(index.clone()).contains(named), "{index}");
    }
    assert!(fault_of(&[("a.safetensors", &file), ("b.safetensors", &file)]).contains("also in"));
    assert!(fault_of(&[("pytorch_model.bin", &file)]).contains("*.safetensors"));
    assert!(fault_of(&[("model.safetensors.index.json", b"{")]).contains("not JSON"));
}

/// A file with the given header and `data` bytes after it.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(vec![0; data]).collect()
}

#[test]
fn a_header_that_lies_is_refused() {
    let good = r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    Safetensors::open(folder(&[("model.safetensors", &with_header(good, 16))]).path()).expect("a good header");
    for (header, data) in [
        (good, 15),
        (good, 17),
        (good, 0),
        ("", 0),
        ("{", 0),
        ("[]", 0),
        ("\u{0}", 0),
        (r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,8]}}"#, 8),
        (r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[16,0]}}"#, 16),
        (r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[-1,15]}}"#, 16),
        (r#"{"w":{"dtype":"F99","shape":[2,2],"data_offsets":[0,16]}}"#, 16),
        (r#"{"w":{"dtype":"F32","shape":"big","data_offsets":[0,16]}}"#, 16),
        (r#"{"w":{"dtype":"F32","shape":[4611686018427387905,4],"data_offsets":[0,16]}}"#, 16),
        (r#"{"w":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,16]}}"#, 16),
        (
            r#"{"v":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"w":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}"#,
            24,
        ),
        (
            r#"{"v":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"w":{"dtype":"F32","shape":[4],"data_offsets":[20,36]}}"#,
            36,
        ),
    ] {
        let message = fault_of(&[("model.safetensors", &with_header(header, data))]);
        assert!(message.contains("model.safetensors"), "{message}");
    }
    // Tensors whose sizes add up to 2^64.
    let size = 1u64 << 60;
    let entry = |index: u64| {
        let end = (index as u128 + 1) * u128::from(size);
        let end = end.min(u128::from(u64::MAX));
        format!(
            r#""t{index}":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{end}]}}"#,
            end as u64 - index * size,
            index * size
        )
    };
    let header = format!("{{{}}}", (0..16).map(entry).collect::<Vec<_>>().join(","));
    fault_of(&[("model.safetensors", &with_header(&header, 7))]);
    for length in [0, 1, 7, 8] {
        fault_of(&[("model.safetensors", &vec![0xFF; length])]);
    }
}

#[test]
fn a_shape_without_elements_does_no_harm() {
    let header = r#"{"w":{"dtype":"F32","shape":[0,18446744073709551615,2],"data_offsets":[0,0]}}"#;
    let folder = folder(&[("model.safetensors", &with_header(header, 0))]);
    let checkpoint = Safetensors::open(folder.path()).expect("a tensor of nothing");
    assert!(matches!(checkpoint.read_rows("w", 0..0, &mut []), Err(Error::Damaged { .. })));
}

proptest! {
    #[test]
    fn no_damage_panics(position in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(), whole in any::<bool>()) {
        let mut file = serialised(&[
            ("a.weight", Dtype::F32, vec![3, 2], stored(Dtype::F32)),
            ("b.weight", Dtype::BF16, vec![2, 3], stored(Dtype::BF16)),
        ]);
        // Damage to the header is what matters; the tensors are any bytes.
        let header = file.len() - 36;
        file[position.index(header)] = byte;
        if !whole {
            file.truncate(cut.index(file.len()));
        }
        let folder = folder(&[("model.safetensors", &file)]);
        if let Ok(checkpoint) = Safetensors::open(folder.path()) {
            for tensor in checkpoint.tensors() {
                let elements: usize = tensor.shape.iter().product();
                let rows = if tensor.shape.len() > 1 { tensor.shape[0] } else { 1 };
                checkpoint.read_rows(&tensor.name, 0..rows, &mut vec![0.0; elements]).unwrap();
            }
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
        assert_eq!((files.name.as_str(), &files.path), ("tiny", &folder));
        assert_eq!(files.stop_tokens, [special_id(0), special_id(2)]);
        let prompt =
            files.chat_template().expect("a template").render(&[Message::new("user", "the")], Rendering::default());
        assert_eq!(prompt.expect("rendering"), "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\n");
        assert!(files.checkpoint.find("model.norm.weight").is_some());
    }
}

#[test]
fn a_folder_of_the_hubs_cache_is_called_as_its_repository() {
    let (_parent, folder) = written(&Recipe::qwen2(1), "models--some--Tiny-model/snapshots/0123");
    assert_eq!(ModelFiles::open(&folder).expect("opening").name, "some/Tiny-model");
}

#[test]
fn stop_tokens_come_from_generation_config_then_config_and_the_tokenizer() {
    let (_parent, folder) = written(&Recipe::llama(1), "tiny");
    let stop_tokens = || ModelFiles::open(&folder).expect("opening").stop_tokens;
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
        let template = files.chat_template().map_err(|error| error.to_string())?;
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
