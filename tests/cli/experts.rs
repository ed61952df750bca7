//! A target with mixtures of experts, and a dense draft of its family, through the commands.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{json_of, name, pard};
use crate::support::tiny_model::Recipe;
use crate::support::tiny_tokenizer::special_id;

/// Folders of the target and of its draft.
fn models(test: &str) -> [PathBuf; 2] {
    let mut draft = Recipe::qwen3(12);
    draft.config.mask_token = Some(special_id(3));
    [("target", Recipe::qwen3_moe(11)), ("draft", draft)].map(|(role, recipe)| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("experts").join(test).join(role);
        std::fs::create_dir_all(&folder).expect("a folder for a model");
        recipe.write(&folder);
        folder
    })
}

#[test]
fn a_dense_draft_serves_a_target_with_experts() {
    let [target, draft] = models("serves");
    let generate = |more: &[&str]| {
        let usual = ["generate", "-m", name(&target), "-p", "the other thing", "-n", "24", "--json"];
        json_of(&[&usual[..], more].concat())
    };
    let alone = generate(&[]);
    let drafted = generate(&["-d", name(&draft), "-k", "3"]);
    assert_eq!((&drafted["method"], &drafted["output_ids"]), (&json!("pard"), &alone["output_ids"]));
}

#[test]
fn commands_know_experts() {
    let [target, draft] = models("known");
    let report = json_of(&["inspect", name(&target), "--json"]);
    assert_eq!(report["config"]["experts"], "2 of 8 for each row, 64 wide, in 3 of 3 layers");
    let fit = json_of(&["fit", "-m", name(&target), "-d", name(&draft), "-c", "100", "--json"]);
    let per_token = fit["speed"]["weight_bytes_per_token"].as_u64().expect("bytes");
    let weights = fit["target_bytes"]["weights"].as_u64().expect("bytes");
    assert!(3 * per_token < 2 * weights, "2 of 8 experts are read: {fit}");
    let profile = json_of(&["profile", "-m", name(&target), "--prompt-tokens", "20", "--rounds", "2", "--json"]);
    let kernels = profile["phases"][1]["parts"][0]["kernels"].as_array().expect("a list");
    for kernel in ["expert_route", "expert_groups", "matmul_experts", "expert_sum"] {
        assert!(kernels.iter().any(|entry: &Value| entry["kernel"] == kernel), "no {kernel} in {profile}");
    }
}

#[test]
fn a_draft_with_experts_is_not_trained() {
    let [target, _] = models("trained");
    let folder = target.parent().expect("a folder");
    let (data, out) = (folder.join("data.jsonl"), folder.join("out"));
    std::fs::write(&data, json!({"text": "the first the second the third"}).to_string()).expect("data");
    let arguments = ["adapt", "-m", name(&target), "--out", name(&out), "--data", name(&data), "--seq-len", "64"];
    pard(&arguments).expect_error(2, &["layer 0 is a mixture of experts", "a dense model"]);
}
