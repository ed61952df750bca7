//! The command `pard` end to end, on small models with random weights.

mod adapt;
mod bench;
mod chat;
mod documents;
mod drafts;
mod experts;
mod fit;
mod grammar;
mod hub_snapshot;
#[cfg(unix)]
mod install;
mod machine;
mod odd_inputs;
mod profile;
mod report;
mod respond;
mod sampling;
#[cfg(feature = "server")]
mod server;
mod shared_draft;
mod start;
#[path = "../support"]
#[allow(dead_code, reason = "the tests of the engine use the rest")]
mod support {
    pub mod random;
    pub mod shared_draft;
    pub mod tiny_model;
    pub mod tiny_tokenizer;
}

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::support::tiny_model::Recipe;
use crate::support::tiny_tokenizer::special_id;

/// The repository's folder.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Folders with models, written once: the target, a draft for it that names a mask token, and damaged ones.
pub(crate) struct Models {
    pub(crate) target: PathBuf,
    pub(crate) draft: PathBuf,
    pub(crate) without_template: PathBuf,
    other_tokenizer: PathBuf,
    truncated: PathBuf,
}

pub(crate) static MODELS: LazyLock<Models> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli");
    let folder = |name: &str, recipe: &Recipe| {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder).expect("a folder for models");
        recipe.write(&folder);
        folder
    };
    let mut with_mask = Recipe::llama(12);
    with_mask.config.mask_token = Some(special_id(3));
    let models = Models {
        target: folder("target", &Recipe::llama(11)),
        draft: folder("draft", &with_mask),
        without_template: folder("without-template", &Recipe::llama(11)),
        other_tokenizer: folder("other-tokenizer", &Recipe::llama(11)),
        truncated: folder("truncated", &Recipe::llama(11)),
    };
    edit(&models.without_template.join("tokenizer_config.json"), |text| text.replace("chat_template", "unused"));
    edit(&models.other_tokenizer.join("tokenizer.json"), |text| swapped(&text));
    let weights = models.truncated.join("model.safetensors");
    let bytes = std::fs::read(&weights).expect("weights");
    std::fs::write(&weights, &bytes[..bytes.len() - 1000]).expect("writing weights");
    models
});

/// A `tokenizer.json` in which X and Z have each other's ids.
fn swapped(tokenizer: &str) -> String {
    tokenizer.replace("\"X\":", "\"other\":").replace("\"Z\":", "\"X\":").replace("\"other\":", "\"Z\":")
}

fn edit(path: &Path, change: impl Fn(String) -> String) {
    let text = std::fs::read_to_string(path).expect("a text file");
    let changed = change(text.clone());
    assert_ne!(changed, text, "{} was to be changed", path.display());
    std::fs::write(path, changed).expect("writing a text file");
}

/// `pard` with `arguments`, far from the user's own models.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pard"));
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli").join("nowhere");
    command.args(arguments).env("PARD_CACHE", &nowhere).env("HF_HOME", &nowhere).env("HF_HUB_OFFLINE", "1");
    command.stdin(Stdio::null());
    command
}

/// Output and exit code of a command.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    fn of(output: Output) -> Ended {
        let text = |bytes| String::from_utf8(bytes).expect("output in UTF-8");
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Checks the exit code, and that the line that begins with `error: ` holds `parts`.
    #[track_caller]
    pub(crate) fn expect_error(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "stdout {:?}, stderr {:?}", self.stdout, self.stderr);
        let line = self.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        for part in parts {
            assert!(line.contains(part), "no {part:?} in {:?}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
    }
}

pub(crate) fn pard(arguments: &[&str]) -> Ended {
    Ended::of(command(arguments).output().expect("running pard"))
}

/// `pard` that must succeed and print JSON.
#[track_caller]
pub(crate) fn json_of(arguments: &[&str]) -> Value {
    let ended = pard(arguments);
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", ended.stdout))
}

fn with_input(arguments: &[&str], input: &[u8]) -> Ended {
    let child = command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("running pard");
    // A command that fails early does not read all of it.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    Ended::of(child.wait_with_output().expect("its end"))
}

fn spawned(arguments: &[&str]) -> Child {
    command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("running pard")
}

pub(crate) fn name(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn every_method_writes_the_same_tokens_and_reports_what_it_did() {
    let target = name(&MODELS.target);
    let draft = name(&MODELS.draft);
    let generate = |more: &[&str]| {
        json_of(&[&["generate", "-m", target, "-p", "the other thing", "-n", "40", "--json"], more].concat())
    };
    let ar = generate(&[]);
    assert_eq!((&ar["method"], &ar["k"]), (&json!("ar"), &json!(0)));
    assert_eq!(ar["finish_reason"], "length");
    assert_eq!(ar["rounds"], 40);
    assert_eq!(ar["output_ids"].as_array().expect("a list").len(), 40);
    assert_eq!(ar["accepted_per_position"], json!([]));
    for field in ["prefill_seconds", "decode_seconds", "tokens_per_second"] {
        assert!(ar[field].as_f64().is_some_and(|value| value > 0.0), "{field} in {ar}");
    }
    assert!(ar["plan"]["adapter"].as_str().is_some_and(|name| !name.is_empty()), "{ar}");
    assert_eq!(ar["plan"]["context"], 512, "the model's own, which is shorter than the usual one");
    // The template's first token.
    assert_eq!(ar["prompt_ids"][0], special_id(1));

    // The target drafting for itself proposes what it will accept.
    let vsd = generate(&["-d", target, "-k", "4"]);
    assert_eq!((&vsd["method"], &vsd["k"], &vsd["rounds"]), (&json!("vsd"), &json!(4), &json!(8)));
    assert_eq!(vsd["accepted_per_position"], json!([1.0, 1.0, 1.0, 1.0]));
    assert_eq!(vsd["tokens_per_round"], 5.0);
    let pard = generate(&["-d", target, "-k", "3", "--mask-token", "5", "-c", "200"]);
    assert_eq!((&pard["method"], &pard["k"]), (&json!("pard"), &json!(3)));
    assert_eq!(pard["plan"]["context"], 200);
    // A parallel draft sees the committed tokens as the target does, up to its first proposal.
    assert_eq!(pard["accepted_per_position"][0], 1.0);
    // A stranger as the draft, which names its own mask token.
    let stranger = generate(&["-d", draft]);
    assert_eq!((&stranger["method"], &stranger["k"]), (&json!("pard"), &json!("auto")));
    for other in [&vsd, &pard, &stranger] {
        assert_eq!(other["output_ids"], ar["output_ids"], "{other}");
        assert_eq!(other["text"], ar["text"]);
    }
}

#[test]
fn text_streams_to_standard_output_and_all_else_to_standard_error() {
    let target = name(&MODELS.target);
    let report = json_of(&["generate", "-m", target, "--raw", "-p", "the thing", "-n", "30", "--json", "-q"]);
    let text = report["text"].as_str().expect("text");
    assert_ne!(report["prompt_ids"][0], special_id(1), "no template was asked for");

    // The same prompt from standard input and from a file; the line's end is not part of it.
    let arguments = ["generate", "-m", target, "--raw", "-n", "30"];
    let ended = with_input(&arguments, b"the thing\n");
    assert_eq!((ended.code, ended.stdout), (Some(0), format!("{text}\n")), "{}", ended.stderr);
    assert!(ended.stderr.contains("tokens/s") && ended.stderr.contains("ended by: length"), "{}", ended.stderr);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prompt.txt");
    std::fs::write(&file, "the thing\r\n").expect("a prompt");
    let quiet = pard(&[&arguments[..], &["-q", "--file", name(&file)]].concat());
    assert_eq!((quiet.code, quiet.stdout, quiet.stderr), (Some(0), format!("{text}\n"), String::new()));

    // A stop string that is there ends the text before it.
    let middle = text.char_indices().nth(text.chars().count() / 2).expect("a text").0;
    let stop: String = text[middle..].chars().take(2).collect();
    let stopped = pard(&[&arguments[..], &["-q", "-p", "the thing", "--stop", &stop]].concat());
    let expected = &text[..text.find(&stop).expect("the stop string")];
    assert_eq!((stopped.code, stopped.stdout), (Some(0), format!("{expected}\n")));
}

#[test]
fn an_answer_ends_with_the_context_by_any_method() {
    let target = name(&MODELS.target);
    let generate = |more: &[&str]| {
        json_of(&[&["generate", "-m", target, "--raw", "-p", "the thing", "-c", "24", "--json"], more].concat())
    };
    let ar = generate(&[]);
    let tokens = |field: &str| ar[field].as_array().expect("a list").len();
    assert_eq!(tokens("prompt_ids") + tokens("output_ids"), 24);
    assert_eq!(ar["finish_reason"], "context");
    let vsd = generate(&["-d", target, "-k", "7"]);
    assert_eq!((&vsd["output_ids"], &vsd["finish_reason"]), (&ar["output_ids"], &ar["finish_reason"]));
}

#[test]
fn bad_usage_is_told_apart_from_failure() {
    let (target, draft) = (name(&MODELS.target), name(&MODELS.draft));
    let generate = |more: &[&str]| pard(&[&["generate", "-m", target, "-p", "the"], more].concat());
    for drafts in ["17", "1000", "-1", "many"] {
        assert_eq!(generate(&["-d", target, &format!("-k={drafts}")]).code, Some(2), "-k {drafts}");
    }
    generate(&["-k", "4"]).expect_error(2, &["--draft-len", "-d"]);
    assert_eq!(generate(&["-k", "auto", "-n", "2"]).code, Some(0), "without a draft there is nothing to choose");
    generate(&["--method", "vsd"]).expect_error(2, &["--method", "-d"]);
    generate(&["--backend", "abacus"]).expect_error(2, &["abacus", "no backend of this platform"]);
    assert_eq!(generate(&["--chat", "--raw"]).code, Some(2));
    assert_eq!(generate(&["--method", "magic"]).code, Some(2));
    assert_eq!(generate(&["-c", "1"]).code, Some(2));
    assert_eq!(pard(&[]).code, Some(2));

    generate(&["--device", "no such card"]).expect_error(1, &["no such card", "this machine has: 0: "]);
    generate(&["-c", "12"]).expect_error(1, &["the context holds 12"]);
    generate(&["-d", target, "--method", "pard"]).expect_error(1, &["names no mask token", "--mask-token"]);
    generate(&["-d", draft, "--mask-token", "100000"]).expect_error(1, &["mask token 100000", "307"]);
    generate(&["-d", name(&MODELS.other_tokenizer)]).expect_error(1, &["\"X\"", "\"Z\""]);
}

#[test]
fn models_and_prompts_that_cannot_be_read_are_named() {
    let target = name(&MODELS.target);
    let of = |model: &str| pard(&["generate", "-m", model, "-p", "the"]);
    of("no-such-folder").expect_error(1, &["no-such-folder", "no such folder or file"]);
    of("smollm2").expect_error(1, &["smollm2", "nowhere", "pard pull HuggingFaceTB/"]);
    of(r"C:\models\none").expect_error(1, &[r#""C:\models\none": there is no such folder"#]);
    of("owner/repository").expect_error(1, &["owner/repository", "HF_HUB_OFFLINE"]);
    of(name(&MODELS.truncated)).expect_error(1, &["model.safetensors"]);
    pard(&["inspect", name(&MODELS.truncated)]).expect_error(1, &["model.safetensors"]);
    let plain = name(&MODELS.without_template);
    pard(&["generate", "-m", plain, "--chat", "-p", "the"]).expect_error(1, &["chat template", "--raw"]);

    let generate = ["generate", "-m", target];
    pard(&["generate", "-m", target, "-p", ""]).expect_error(1, &["the prompt is empty"]);
    with_input(&generate, b"").expect_error(1, &["the prompt is empty"]);
    with_input(&generate, b"\n").expect_error(1, &["the prompt is empty"]);
    with_input(&generate, b"the \xff thing").expect_error(1, &["standard input is not UTF-8", "byte 4"]);
    let missing = [&generate[..], &["--file", "no-such-prompt"]].concat();
    let ended = pard(&missing);
    ended.expect_error(1, &["no-such-prompt"]);
    assert_eq!(ended.stderr.matches("No such file").count(), usize::from(cfg!(unix)), "{}", ended.stderr);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let target = name(&MODELS.target);
    let mut child = spawned(&["generate", "-m", target, "--raw", "-p", "the thing", "-n", "400"]);
    let mut first = [0];
    child.stdout.take().expect("a pipe").read_exact(&mut first).expect("the first byte");
    // The pipe is closed here, with most of the answer to come.
    let ended = Ended::of(child.wait_with_output().expect("its end"));
    assert_eq!((ended.code, ended.stderr.contains("error")), (Some(0), false), "{}", ended.stderr);

    let mut child = spawned(&["inspect", target, "--tensors"]);
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("its end").code(), Some(0));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_answer_and_keeps_what_was_written() {
    let target = name(&MODELS.target);
    let mut child = spawned(&["generate", "-m", target, "--raw", "-p", "the thing", "-n", "100000", "-c", "16384"]);
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut first = [0];
    stdout.read_exact(&mut first).expect("the first byte");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("the rest");
    let ended = Ended::of(child.wait_with_output().expect("its end"));
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stderr.contains("ended by: cancelled"), "{}", ended.stderr);
    assert!(ended.stderr.contains("made for contexts of 512 tokens"), "{}", ended.stderr);
    assert!(rest.ends_with(b"\n"), "the text ends with its line");
}

#[test]
fn devices_and_models_are_described() {
    let devices = json_of(&["devices", "--json"]);
    let devices = devices.as_array().expect("a list");
    let chosen: Vec<&Value> = devices.iter().filter(|device| device["chosen"] == true).collect();
    assert_eq!(chosen.len(), 1, "{devices:?}");
    for field in ["name", "backend", "type", "driver", "reason"] {
        assert!(chosen[0][field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {}", chosen[0]);
    }
    let text = pard(&["devices"]);
    assert!(text.code == Some(0) && text.stdout.contains("would be used"), "{}", text.stdout);
    pard(&["devices", "--device", "no such card"]).expect_error(1, &["no such card", "this machine has: 0: "]);

    let draft = name(&MODELS.draft);
    let model = json_of(&["inspect", draft, "--json", "--tensors", "-c", "100", "--cache", "f32"]);
    assert_eq!(model["config"]["family"], "llama");
    assert_eq!(model["config"]["pard_token"], special_id(3));
    assert_eq!(model["stop_tokens"], json!([special_id(0), special_id(2)]));
    assert_eq!(model["chat_template"], true);
    let list = model["tensor_list"].as_array().expect("a list");
    assert_eq!(model["tensors"]["BF16"]["tensors"], list.len());
    assert_eq!(model["tensors"]["BF16"]["parameters"], model["parameters"]);
    // Layers × keys and values × key-value width × (context + 2 · 16, in tiles of 64) × bytes.
    assert_eq!(model["memory"]["cache_bytes"], 3 * 2 * 32 * 192 * 4);
    // In 8 bits a head of 32 takes 32 bytes and a scale.
    let small = json_of(&["inspect", draft, "--json", "-c", "100", "--cache", "q8_0"]);
    assert_eq!(small["memory"]["cache_bytes"], 3 * 2 * 36 * 192);
    // Matrices alone, two bytes a weight.
    let matrices = list.iter().filter(|tensor| tensor["shape"].as_array().is_some_and(|shape| shape.len() == 2));
    let bytes: u64 = matrices.filter_map(|tensor| tensor["bytes"].as_u64()).sum();
    assert_eq!(model["memory"]["weight_bytes"], bytes);
    let text = pard(&["inspect", draft, "--tensors"]);
    for part in ["pard_token", "model.layers.0.mlp.up_proj.weight", "BF16", "chat template            yes"] {
        assert!(text.stdout.contains(part), "no {part:?} in {}", text.stdout);
    }
}
