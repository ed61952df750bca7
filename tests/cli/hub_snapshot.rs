//! A draft as it is published: a snapshot in the hub's cache, laid out like `amd/PARD-Qwen3-0.6B`, with `pard_token` and
//! `spd_type` in its configuration and its tied head stored twice. It serves as a plain chat model, as its model card
//! shows, and as the draft of another model of its family. Weights are small and random; the tokenizer is Qwen3's own
//! where that is at hand.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::tiny_model::{Recipe, write_json};

const REPOSITORY: &str = "amd/PARD-Qwen3-0.6B";
const PARD_TOKEN: u32 = 151_670;

/// Writes a snapshot of `repository` into the hub's cache `hub`, as `huggingface_hub` lays it out.
fn write_snapshot(hub: &Path, repository: &str, seed: u64, pard_token: Option<u32>) -> PathBuf {
    const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";
    let root = hub.join(format!("models--{}", repository.replace('/', "--")));
    let folder = root.join("snapshots").join(REVISION);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::create_dir_all(root.join("refs")).expect("a folder");
    std::fs::write(root.join("refs/main"), REVISION).expect("the reference");

    let mut recipe = Recipe::qwen3(seed);
    recipe.config.vocab_size = 151_936;
    recipe.shards = 1;
    assert!(recipe.duplicate_head);
    recipe.write(&folder);
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("config.json")).expect("JSON");
    if let Some(token) = pard_token {
        config["pard_token"] = token.into();
        config["spd_type"] = "pard".into();
    }
    write_json(&path, &config);

    let real = Path::new(crate::ROOT).join("tests/data/tokenizers/qwen3");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(real.join(file), folder.join(file)).expect("copying a tokenizer");
    }
    // The tiny tokenizer's end of text is an ordinary token of the real one.
    write_json(&folder.join("generation_config.json"), &serde_json::json!({ "eos_token_id": [151_645, 151_643] }));
    folder
}

fn generate(hub: &Path, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pard"));
    command.args(["generate", "--json", "--chat", "-p", "Who are you?", "-n", "40"]).args(arguments);
    let output = command.env("HF_HUB_CACHE", hub).env("HF_HUB_OFFLINE", "1").output().expect("running pard");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one object of JSON")
}

#[test]
fn a_published_draft_chats_and_drafts() {
    let hub = tempfile::tempdir().expect("a temporary folder");
    write_snapshot(hub.path(), REPOSITORY, 61, Some(PARD_TOKEN));
    write_snapshot(hub.path(), "Qwen/Qwen3-8B", 62, None);

    let chat = generate(hub.path(), &["-m", REPOSITORY]);
    assert_eq!(chat["method"], "ar");
    assert_eq!(chat["output_ids"].as_array().expect("ids").len(), 40, "{chat}");

    let alone = generate(hub.path(), &["-m", "Qwen/Qwen3-8B"]);
    let drafted = generate(hub.path(), &["-m", "Qwen/Qwen3-8B", "-d", REPOSITORY, "-k", "6"]);
    assert_eq!((&drafted["method"], &drafted["k"]), (&"pard".into(), &6.into()), "the draft names its mask token");
    assert_eq!(drafted["output_ids"], alone["output_ids"]);
    assert_ne!(chat["output_ids"], alone["output_ids"], "the two models are not the same");
}
