//! `pard drafts`, `-d auto`, and what `pard inspect` says of published drafts.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Ended, ROOT, command};

fn data(path: &str) -> String {
    Path::new(ROOT).join("tests/data/pard2").join(path).to_str().expect("UTF-8").to_owned()
}

/// A hub's cache in `home` that holds the draft in `files` as `amd/PARD-Qwen3-0.6B`, without a tokenizer.
fn cached(home: &Path, files: &str) -> PathBuf {
    let repository = home.join("hub/models--amd--PARD-Qwen3-0.6B");
    let snapshot = repository.join("snapshots/0123abc");
    std::fs::create_dir_all(&snapshot).expect("a folder");
    std::fs::create_dir_all(repository.join("refs")).expect("a folder");
    std::fs::write(repository.join("refs/main"), "0123abc").expect("writing");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(Path::new(&data(files)).join(file), snapshot.join(file)).expect("copying");
    }
    snapshot
}

fn run(home: &Path, arguments: &[&str]) -> Ended {
    let mut command: Command = command(arguments);
    Ended::of(command.env("HF_HOME", home).output().expect("the program"))
}

#[test]
fn drafts_that_serve_a_model_are_listed_and_the_best_here_is_taken() {
    let home = tempfile::tempdir().expect("a folder");
    let target = data("qwen3_td/target");
    let prompt = ["-p", "<|bos|>=VXZB;*IL", "--raw", "-n", "8"];
    let auto = [&["generate", "-m", &target, "-d", "auto"][..], &prompt].concat();
    let listed = run(home.path(), &["drafts", &target]);
    assert!(listed.stdout.contains("pard pull amd/PARD-Qwen3-0.6B"), "{}", listed.stdout);
    // One for other sizes of target serves nobody here.
    assert!(!listed.stdout.contains("PARD2"), "{}", listed.stdout);
    run(home.path(), &auto).expect_error(1, &["amd/PARD-Qwen3-0.6B", "pard pull"]);

    let snapshot = cached(home.path(), "pard1/draft");
    let listed = run(home.path(), &["drafts", &target, "--json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed[0]["path"], snapshot.to_str().expect("UTF-8"));
    assert!(listed[0]["bytes"].as_u64().expect("bytes") > 100_000);
    let answered = run(home.path(), &auto);
    assert!(answered.stderr.contains("the draft is amd/PARD-Qwen3-0.6B"), "{}", answered.stderr);
    let plain = run(home.path(), &[&["generate", "-m", &target][..], &prompt].concat());
    assert_eq!((answered.code, answered.stdout), (Some(0), plain.stdout));

    let llama = data("llama_td/target");
    let none = run(home.path(), &["generate", "-m", &llama, "-d", "auto", "-p", "a"]);
    none.expect_error(1, &["no published draft"]);
}

#[test]
fn a_pard_2_draft_says_what_it_is_and_whether_it_reads_states() {
    let home = tempfile::tempdir().expect("a folder");
    let (target, draft) = (data("qwen3_td/target"), data("qwen3_td/draft"));
    let inspected = run(home.path(), &["inspect", &draft]);
    assert!(inspected.stdout.contains("PARD-2, beside the hidden states [-1, -2, -4, -6]"), "{}", inspected.stdout);
    let answer = |more: &[&str]| {
        let prompt = ["-p", "<|bos|>=VXZB;*IL", "--raw", "-n", "24", "-k", "4", "--json"];
        let ended = run(home.path(), &[&["generate", "-m", &target, "-d", &draft][..], &prompt, more].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        (serde_json::from_str::<Value>(&ended.stdout).expect("JSON"), ended.stderr)
    };
    let ((with, said), (without, noted)) = (answer(&[]), answer(&["--target-states", "off"]));
    assert!(!said.contains("without its target's states"), "{said}");
    assert!(noted.contains("without its target's states") && noted.contains("--target-states off"), "{noted}");
    assert_eq!(with["text"], without["text"]);
    let inspected = run(home.path(), &["inspect", &data("pard1/draft"), "--json"]);
    let inspected: Value = serde_json::from_str(&inspected.stdout).expect("JSON");
    assert_eq!(inspected["draft"], "PARD, in parallel by the mask token 400");
}
