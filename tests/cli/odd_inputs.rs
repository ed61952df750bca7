//! Inputs as other platforms and tools make them, and output that cannot be written.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Ended, MODELS, command, json_of, name, pard, with_input};
use crate::support::tiny_model::Recipe;

fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("odd-inputs").join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn with_variable(arguments: &[&str], variable: &str, value: &str) -> Ended {
    Ended::of(command(arguments).env(variable, value).output().expect("running pard"))
}

#[test]
fn byte_order_marks_are_no_part_of_a_text() {
    let target = name(&MODELS.target);
    let generate = ["generate", "-m", target, "--raw", "-n", "1", "--json"];
    let ids = |report: &Value| report["prompt_ids"].clone();
    let plain = ids(&json_of(&[&generate[..], &["-p", "the thing"]].concat()));
    let folder = folder("marks");
    let file = folder.join("prompt.txt");
    std::fs::write(&file, "\u{feff}the thing\r\n").expect("a file");
    assert_eq!(ids(&json_of(&[&generate[..], &["-f", name(&file)]].concat())), plain);
    let piped = with_input(&generate, "\u{feff}the thing\n".as_bytes());
    assert_eq!(ids(&serde_json::from_str(&piped.stdout).expect("JSON")), plain);
    let schema = folder.join("schema.json");
    std::fs::write(&schema, "\u{feff}{\"type\": \"boolean\"}").expect("a file");
    json_of(&[&generate[..], &["-p", "the", "--json-schema", name(&schema)]].concat());

    let utf16: Vec<u8> = "\u{feff}the".encode_utf16().flat_map(u16::to_le_bytes).collect();
    with_input(&generate, &utf16).expect_error(1, &["standard input is UTF-16", "UTF-8"]);
}

#[test]
fn variables_that_are_empty_or_name_what_is_not_here() {
    let target = name(&MODELS.target);
    let generate = ["generate", "-m", target, "--raw", "-p", "the", "-n", "1", "-q"];
    for variable in ["WGPU_BACKEND", "WGPU_ADAPTER_NAME", "WGPU_DX12_COMPILER"] {
        assert_eq!(with_variable(&generate, variable, "").code, Some(0), "{variable}");
    }
    for value in ["gl", "abacus", "gl,abacus"] {
        with_variable(&generate, "WGPU_BACKEND", value).expect_error(2, &["WGPU_BACKEND", value]);
    }
    let elsewhere = if cfg!(target_os = "linux") { "metal" } else { "abacus" };
    pard(&[&generate[..], &["--backend", elsewhere]].concat()).expect_error(2, &["--backend", elsewhere]);
    if cfg!(target_os = "linux") {
        for value in ["gl, VK", "vulkan,metal"] {
            assert_eq!(with_variable(&generate, "WGPU_BACKEND", value).code, Some(0), "{value}");
        }
    }
    let mut homeless = command(&["models"]);
    for variable in ["HOME", "USERPROFILE", "LOCALAPPDATA", "PARD_CACHE", "HF_HOME", "XDG_CACHE_HOME"] {
        homeless.env_remove(variable);
    }
    Ended::of(homeless.output().expect("running pard")).expect_error(1, &["no home folder", "PARD_CACHE", "HF_HOME"]);
}

#[test]
fn what_a_folder_suggests_is_told() {
    let folder = folder("suggestions");
    Recipe::llama(7).write(&folder);
    std::fs::write(folder.join("generation_config.json"), "{\"do_sample\": true, \"temperature\": 0.6}")
        .expect("a file");
    let generate = ["generate", "-m", name(&folder), "--raw", "-p", "the", "-n", "1"];
    let told = pard(&generate);
    assert_eq!(told.code, Some(0));
    assert!(told.stderr.contains("suggest temperature 0.6"), "{}", told.stderr);
    let quiet = pard(&[&generate[..], &["-q"]].concat());
    assert_eq!((&*quiet.stderr, quiet.stdout), ("", told.stdout));
}

#[test]
#[cfg(unix)]
fn an_argument_that_is_no_text_is_shown() {
    use std::os::unix::ffi::OsStrExt;
    let mut odd = command(&["generate", "-p", "the", "-m"]);
    odd.arg(std::ffi::OsStr::from_bytes(b"models/\xff/tiny"));
    Ended::of(odd.output().expect("running pard")).expect_error(2, &["models/", "/tiny", "not UTF-8"]);
}

#[test]
fn negative_numbers_are_told_their_range() {
    let target = name(&MODELS.target);
    for (flag, range) in [
        ("--seed", "from 0 to 18446744073709551615"),
        ("-n", "from 0 on"),
        ("--top-k", "from 0 on"),
        ("--logprobs", "from 0 on"),
        ("-c", "2.."),
        ("-t", "from 0 to"),
    ] {
        let ended = pard(&["generate", "-m", target, "-p", "the", flag, "-1"]);
        assert_eq!(ended.code, Some(2), "{flag}");
        assert!(ended.stderr.contains(range), "{flag}: {}", ended.stderr);
    }
}

#[test]
fn thinking_that_a_template_does_not_know_is_worth_a_word() {
    let folder = folder("thinking");
    Recipe::llama(11).write(&folder);
    let generate = ["generate", "-m", name(&folder), "-p", "the", "-n", "1", "--thinking", "off"];
    let said = |ended: Ended| ended.stderr.contains("knows no thinking");
    assert!(said(pard(&generate)));
    std::fs::write(folder.join("chat_template.jinja"), "{{ messages[0].content }}{{ enable_thinking }}")
        .expect("a file");
    assert!(!said(pard(&generate)));
}

#[test]
fn output_that_cannot_be_written_is_found_out_before_the_work() {
    let folder = folder("output");
    let (target, blocked) = (name(&MODELS.target), folder.join("file"));
    std::fs::write(&blocked, "x").expect("a file");
    let data = folder.join("data.jsonl");
    std::fs::write(&data, "{\"text\": \"the thing and the thing\"}\n").expect("a file");
    let inside = blocked.join("inside");
    with_variable(&["tune", "-m", target], "PARD_CACHE", name(&blocked))
        .expect_error(1, &["cannot write", name(&blocked)]);
    pard(&["adapt", "-m", target, "--out", name(&inside), "--data", name(&data)])
        .expect_error(1, &["cannot write", name(&inside)]);
    pard(&["profile", "-m", target, "--trace", name(&inside)]).expect_error(1, &["cannot write", name(&inside)]);
    pard(&["report", "-m", target, "--out", name(&inside)]).expect_error(1, &["cannot write", name(&inside)]);
    assert_eq!(std::fs::read(&blocked).expect("reading"), b"x");
}
