//! The programs of examples/, which run as they are written.

use std::path::Path;
use std::process::Command;

/// Output of the example `name`.
fn output(name: &str, arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Built by `cargo test`, so that nothing is left to compile.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--locked", "--quiet", "--example", name, "--"]).args(arguments).current_dir(root);
    let ended = cargo.output().expect("running cargo");
    assert!(ended.status.success(), "{name}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).expect("UTF-8")
}

#[test]
fn the_first_example_answers_with_a_draft() {
    let draft = "models/smollm2-135m-instruct-pard";
    let text = output("answer", &["smollm2", draft, "What is the capital of France? Answer in one word."]);
    let (answer, counts) = text.trim_end().rsplit_once('\n').expect("two lines");
    assert!(answer.contains("Paris"), "{text}");
    let numbers: Vec<usize> = counts.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(numbers.len() == 2 && numbers[0] >= numbers[1], "{counts}");
}

#[test]
fn several_prompts_are_answered_in_the_same_passes() {
    let text = output("several", &["What is the capital of France?", "What is the capital of Italy?"]);
    let answers: Vec<&str> = text.lines().filter(|line| line.starts_with("  ")).collect();
    assert!(answers.len() >= 2 && answers[0].contains("Paris"), "{text}");
}

#[test]
fn rounds_are_awaited() {
    assert!(output("asynchronous", &[]).trim().len() > 10);
}

#[test]
fn a_device_of_the_application_runs_a_model() {
    assert!(output("shared_device", &[]).trim().len() > 10);
}

#[test]
fn rounds_of_a_published_draft_are_printed() {
    let [target, draft] = ["target", "draft"].map(|name| format!("tests/data/pard2/qwen3_td/{name}"));
    let text = output("rounds", &[&target, &draft, "<|bos|>=VXZB;*IL", "4", "12"]);
    let first: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["proposals"], serde_json::json!([51, 54, 57, 60]), "{text}");
}
