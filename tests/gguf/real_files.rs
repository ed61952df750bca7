//! A real file against its converted folder, by hand:
//! `PARD_TEST_GGUF=model.gguf PARD_TEST_FOLDER=folder [PARD_TEST_IDS=golden.jsonl] cargo test --release -- real_files`.
//! The folder's BF16 weights must be the file's, rounded; its tokenizer must give the same ids.

use std::path::{Path, PathBuf};

use half::bf16;
use pard::checkpoint::Checkpoint;
use pard::checkpoint::gguf::Gguf;
use safetensors::SafeTensors;
use serde_json::Value as Json;
use tokenizers::Tokenizer;

use super::tokenizer::{assert_same, ids};

fn path_in(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        super::skipped(&format!("{variable} names no file"));
    }
    path
}

fn files() -> Option<(Gguf, PathBuf)> {
    let gguf = Gguf::open(&path_in("PARD_TEST_GGUF")?).unwrap_or_else(|error| panic!("{error}"));
    Some((gguf, path_in("PARD_TEST_FOLDER")?))
}

fn json(folder: &Path, name: &str) -> Json {
    serde_json::from_slice(&std::fs::read(folder.join(name)).expect("a file")).expect("JSON")
}

#[test]
#[ignore = "by hand: holds the file PARD_TEST_GGUF against the folder PARD_TEST_FOLDER that was made from it"]
fn weights_are_the_folders() {
    let Some((gguf, folder)) = files() else { return };
    let bytes = std::fs::read(folder.join("model.safetensors")).expect("weights");
    let folder = SafeTensors::deserialize(&bytes).expect("safetensors");
    let has_head = folder.tensor("lm_head.weight").is_ok();
    for (mut name, view) in folder.tensors() {
        // A converted folder keeps one of two copies of a tied matrix, the more exact one.
        let size = |name: &str| gguf.find(name).map_or(0, |tensor| tensor.bytes);
        if name == "model.embed_tokens.weight" && !has_head && size("lm_head.weight") > size(&name) {
            name = "lm_head.weight".to_owned();
        }
        let info = gguf.expect(&name, view.shape()).unwrap_or_else(|error| panic!("{error}"));
        let columns = info.shape[info.shape.len() - 1];
        let rows = view.data().len() / 2 / columns;
        let mut values = vec![f32::NAN; columns];
        for (row, expected) in view.data().chunks_exact(columns * 2).enumerate() {
            gguf.read_rows(&name, row..row + 1, &mut values).expect("a row");
            for (value, expected) in values.iter().zip(expected.as_chunks::<2>().0) {
                assert_eq!(bf16::from_f32(*value).to_le_bytes(), *expected, "{name}, row {row} of {rows}");
            }
        }
    }
    let doubled = usize::from(!has_head && gguf.find("lm_head.weight").is_some());
    assert_eq!(folder.len() + doubled, gguf.tensors().len());
}

#[test]
#[ignore = "by hand: holds the file PARD_TEST_GGUF against the folder PARD_TEST_FOLDER that was made from it"]
fn hyper_parameters_are_the_folders() {
    let Some((gguf, folder)) = files() else { return };
    let (config, expected) = (gguf.config().expect("a configuration"), json(&folder, "config.json"));
    for (field, value) in [
        ("hidden_size", config.hidden_size),
        ("num_hidden_layers", config.layers),
        ("num_attention_heads", config.heads),
        ("num_key_value_heads", config.kv_heads),
        ("intermediate_size", config.feed_forward_size),
        ("max_position_embeddings", config.context),
        ("vocab_size", config.vocab_size),
    ] {
        assert_eq!(expected[field], value, "{field}");
    }
    assert_eq!(expected["rms_norm_eps"].as_f64(), Some(config.norm_epsilon));
    assert_eq!(expected["rope_theta"].as_f64(), Some(config.rope_theta));
    assert_eq!(config.tied_head, gguf.find("lm_head.weight").is_none());
}

#[test]
#[ignore = "by hand: holds the file PARD_TEST_GGUF against the folder PARD_TEST_FOLDER that was made from it"]
fn the_tokenizer_is_the_folders() {
    let Some((gguf, folder)) = files() else { return };
    assert_same(&gguf, &Tokenizer::from_file(folder.join("tokenizer.json")).expect("a tokenizer"));
    let settings = json(&folder, "tokenizer_config.json");
    assert_eq!(settings["chat_template"].as_str(), gguf.chat_template().expect("a text"));
    let special = gguf.special_tokens().expect("tokens");
    assert_eq!(settings["add_bos_token"], special.add_begin);
    let end = gguf.tokenizer().expect("a tokenizer").id_to_token(special.end.expect("an end token"));
    assert_eq!(settings["eos_token"].as_str(), end.as_deref());
}

#[test]
#[ignore = "by hand: holds the tokens of PARD_TEST_GGUF against those recorded in PARD_TEST_IDS"]
fn recorded_prompts_have_the_recorded_ids() {
    let (Some((gguf, _)), Some(recorded)) = (files(), path_in("PARD_TEST_IDS")) else { return };
    let tokenizer = gguf.tokenizer().expect("a tokenizer");
    for line in std::fs::read_to_string(recorded).expect("a file").lines() {
        let line: Json = serde_json::from_str(line).expect("JSON");
        let list = |field: &str| -> Vec<u32> { serde_json::from_value(line[field].clone()).expect("ids") };
        let (prompt, output) = (list("prompt_ids"), list("output_ids"));
        let text = tokenizer.decode(&prompt, false).expect("text");
        assert_eq!(ids(&tokenizer, &text, false), prompt, "{text:?}");
        assert_eq!(Some(tokenizer.decode(&output, true).expect("text").as_str()), line["text"].as_str());
    }
}
