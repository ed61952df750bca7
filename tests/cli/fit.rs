//! `pard fit`, and what is refused before it is uploaded.

use serde_json::{Value, json};

use super::{MODELS, json_of, name, pard};

fn sum(parts: &Value) -> u64 {
    ["weights", "caches", "scratch"].iter().filter_map(|part| parts[part].as_u64()).sum()
}

#[test]
fn what_fits_is_said_before_anything_is_uploaded() {
    let (target, draft) = (name(&MODELS.target), name(&MODELS.draft));
    let fit = json_of(&["fit", "-m", target, "-d", draft, "-c", "200", "--sizes-only", "--json"]);
    assert_eq!(sum(&fit["target_bytes"]), fit["target_bytes"]["total"].as_u64().expect("a sum"), "{fit}");
    // Two models of the same sizes.
    assert_eq!(fit["target_bytes"], fit["draft_bytes"]);
    assert_eq!(fit["needed_bytes"], json!(sum(&fit["target_bytes"]) + sum(&fit["draft_bytes"])));
    assert_eq!((&fit["context"], &fit["speed"], &fit["weights"]), (&json!(200), &Value::Null, &json!("as stored")));
    let ways = fit["ways"].as_array().expect("a list");
    let way = |weights: &str| ways.iter().find(|way| way["weights"] == weights).unwrap_or_else(|| panic!("{fit}"));
    assert!(way("--quantize q8_0")["weight_bytes"].as_u64() < way("as stored")["weight_bytes"].as_u64());
    // It is stored so.
    assert!(ways.iter().all(|way| way["weights"] != "--weights bf16"), "{fit}");
    // It drafts for itself: the weights are there once.
    let itself = json_of(&["fit", "-m", draft, "-d", draft, "-c", "200", "--sizes-only", "--json"]);
    assert_eq!(itself["draft_bytes"]["weights"], 0);
    assert_eq!(itself["draft_bytes"]["caches"], fit["draft_bytes"]["caches"]);

    // The memory needed is enough, and a little less is not.
    let gib = |bytes: u64| format!("{}", bytes as f64 / f64::from(1 << 30));
    let needed = fit["needed_bytes"].as_u64().expect("a sum");
    let models = ["-m", target, "-d", draft, "-c", "200"];
    let within = |memory: &str| pard(&[&["fit", "--sizes-only", "--memory", memory], &models[..]].concat());
    let enough = within(&gib(needed + 1000));
    assert_eq!(enough.code, Some(0), "{}", enough.stderr);
    assert!(enough.stdout.contains("\nfits: "), "{}", enough.stdout);
    let short = within(&gib(needed - 1000));
    assert_eq!(short.code, Some(1), "{}", short.stdout);
    for part in ["does not fit", "--memory allows", "--quantize q8_0", "longest context", "target", "draft", "both"] {
        assert!(short.stdout.contains(part), "no {part:?} in {}", short.stdout);
    }

    let short = gib(needed - 1000);
    let hints =
        ["of weights", "of caches", "of scratch", "-c", "--quantize q4_k", "--cache", "a smaller draft", "pard fit"];
    for command in [&["generate", "-p", "the"][..], &["bench", "-n", "2"], &["profile"], &["chat"]] {
        pard(&[command, &models, &["--memory", &short]].concat()).expect_error(1, &hints);
    }
    let alone = ["generate", "-p", "the", "-m", target, "--memory", "0.0001"];
    pard(&alone).expect_error(1, &["a smaller model", "pard fit"]);
    let enough = gib(needed + 1000);
    let said = pard(&[&["generate", "-p", "the", "-n", "4", "--memory", &enough], &models[..]].concat());
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

#[test]
fn speeds_are_foretold_from_passes() {
    let (target, draft) = (name(&MODELS.target), name(&MODELS.draft));
    let fit = json_of(&["fit", "-m", target, "-d", draft, "-c", "100", "--json"]);
    let speed = &fit["speed"];
    assert!(speed["tokens_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{fit}");
    assert!(speed["tokens_per_second_at_end"].as_f64() <= speed["tokens_per_second"].as_f64(), "{fit}");
    assert_eq!((&speed["method"], &speed["tuned"]), (&json!("pard"), &json!(false)));
    let promises = speed["speculative"].as_array().expect("a list");
    let rates: Vec<f64> = promises.iter().filter_map(|promise| promise["tokens_per_second"].as_f64()).collect();
    assert!(rates.len() == 4 && rates.is_sorted(), "{fit}");
    let text = pard(&["fit", "-m", target, "-c", "100"]);
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    assert!(text.stdout.contains("tokens/s one by one") && !text.stdout.contains("accepted"), "{}", text.stdout);
}

#[test]
fn what_cannot_be_said_is_an_error() {
    let target = name(&MODELS.target);
    for wrong in ["0", "-1", "nan", "inf", "much"] {
        let memory = format!("--memory={wrong}");
        assert_eq!(pard(&["fit", "-m", target, &memory]).code, Some(2), "{wrong}");
    }
    pard(&["fit", "-m", "no/such/model"]).expect_error(1, &["no/such/model"]);
    pard(&["fit", "-m", target, "--device", "no such card"]).expect_error(1, &["no such card"]);
    pard(&["fit", "-m", target, "-d", name(&MODELS.other_tokenizer)]).expect_error(1, &["tokenizer"]);
    // The longest context there can be: most adapters can bind no such cache.
    let long = pard(&["fit", "-m", target, "-c", "16777216", "--sizes-only", "--json"]);
    let report: Value = serde_json::from_str(&long.stdout).unwrap_or_else(|error| panic!("{error}: {}", long.stderr));
    assert_eq!(long.code == Some(1), report["fits"] == json!(false), "{report}");
    assert!(report["obstacle"].is_null() || report["fits"] == json!(false), "{report}");
}
