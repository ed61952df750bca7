//! `pard adapt`: a draft of a small model, from a run that is killed and taken up again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Ended, MODELS, command, name, pard};

/// An empty folder of this test's own.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("adapt").join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Lines of every form, two of them of no use.
fn data(folder: &Path) -> PathBuf {
    let path = folder.join("data.jsonl");
    let lines = [
        json!({"messages": [{"role": "user", "content": "the thing"}, {"role": "assistant", "content": "is the other"}]})
            .to_string(),
        json!({"prompt": "and the other?", "response": "the thing, the thing, the thing"}).to_string(),
        json!({"text": "the first the second the third the first the second the third"}).to_string(),
        "no JSON".to_owned(),
        String::new(),
        json!({"prompt": "without an answer"}).to_string(),
    ];
    std::fs::write(&path, lines.map(|line| line + "\n").concat()).expect("data");
    path
}

fn arguments<'a>(out: &'a Path, data: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let usual = ["--layers", "0,2", "--freeze-embeddings", "--lr", "1e-3", "--epochs", "12", "--batch-tokens", "200"];
    let named = ["adapt", "-m", name(&MODELS.target), "--out", name(out), "--data", name(data), "--pass-rows", "300"];
    [&named[..], &usual, &["--seq-len", "64", "--every", "2"], more].concat()
}

fn adapt(out: &Path, data: &Path, more: &[&str]) -> Ended {
    pard(&arguments(out, data, more))
}

#[test]
fn a_killed_run_that_is_resumed_makes_the_same_draft_and_it_drafts() {
    let folder = folder("killed");
    let (data, whole, killed) = (data(&folder), folder.join("whole"), folder.join("killed"));
    let ended = adapt(&whole, &data, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for part in ["data.jsonl:4: it is no JSON object", "data.jsonl:6: it has neither", "3 samples", "loss "] {
        assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    }

    // Killed as soon as there is a checkpoint.
    let state = killed.join("training_state.safetensors");
    let mut run = command(&arguments(&killed, &data, &[]));
    let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pard");
    let begin = Instant::now();
    while !state.exists() && begin.elapsed() < Duration::from_secs(100) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("killing");
    child.wait().expect("its end");
    assert!(state.exists(), "there was no checkpoint to kill it after");
    let again = adapt(&killed, &data, &[]);
    assert_eq!(again.code, Some(2), "{}", again.stderr);
    assert!(again.stderr.contains("--resume"), "{}", again.stderr);
    let other = adapt(&killed, &data, &["--resume", "--seed", "5"]);
    assert!(other.code == Some(1) && other.stderr.contains("another run"), "{}", other.stderr);
    let resumed = adapt(&killed, &data, &["--resume"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).expect("weights");
    assert!(weights(&killed) == weights(&whole), "the resumed run's draft is another one");
    let permissions = |file: &str| std::fs::metadata(whole.join(file)).expect("a file").permissions();
    assert_eq!(permissions("model.safetensors"), permissions("config.json"));

    let config: Value =
        serde_json::from_slice(&std::fs::read(whole.join("config.json")).expect("config.json")).expect("JSON");
    assert_eq!((&config["spd_type"], &config["num_hidden_layers"]), (&json!("pard"), &json!(2)));
    let answer = ["generate", "-m", name(&MODELS.target), "-p", "the thing", "-n", "16"];
    let alone = pard(&answer);
    for method in ["pard", "vsd"] {
        let drafted = pard(&[&answer[..], &["-d", name(&whole), "-k", "4", "--method", method]].concat());
        assert_eq!((drafted.code, &drafted.stdout), (Some(0), &alone.stdout), "{method}: {}", drafted.stderr);
    }
}

#[test]
fn what_cannot_be_learnt_from_is_refused() {
    let folder = folder("refused");
    let (data, empty, out) = (data(&folder), folder.join("empty.jsonl"), folder.join("out"));
    std::fs::write(&empty, "{\"prompt\": \"alone\"}\n").expect("data");
    let cases: [(&[&str], &Path, i32, &str); 6] = [
        (&[], &empty, 1, "empty.jsonl:1: it has neither"),
        (&[], &folder.join("absent.jsonl"), 1, "absent.jsonl"),
        (&["--layers", "0,7"], &data, 2, "has no layer 7"),
        (&["--retain", "1.5"], &data, 2, "1.5 is not between 0 and 1"),
        (&["--resume"], &data, 1, "training_state.safetensors"),
        (&["--pass-rows", "40"], &data, 2, "--seq-len"),
    ];
    for (more, data, code, part) in cases {
        let usual = arguments(&out, data, &[]);
        // An option that is given takes the place of the usual one.
        let given = match more.first().and_then(|option| usual.iter().position(|argument| argument == option)) {
            Some(at) => [&usual[..at], more, &usual[at + 2..]].concat(),
            None => [&usual[..], more].concat(),
        };
        let ended = pard(&given);
        assert!(ended.code == Some(code) && ended.stderr.contains(part), "{more:?}: {:?} {}", ended.code, ended.stderr);
    }
    assert!(!out.join("model.safetensors").exists());
}

#[test]
fn a_teacher_answers_prompts_that_come_alone_and_is_what_the_draft_is_held_against() {
    let folder = folder("teacher");
    let (prompts, out) = (folder.join("prompts.jsonl"), folder.join("out"));
    let lines =
        ["the thing", "and the other?", "the first"].map(|prompt| json!({ "prompt": prompt }).to_string() + "\n");
    std::fs::write(&prompts, lines.concat()).expect("prompts");
    let taught = ["--loss", "teacher", "--teacher", name(&MODELS.target), "--held-out", name(&prompts)];
    let ended = adapt(&out, &prompts, &taught);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for part in ["3 samples", "divergence ", "held out: "] {
        assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    }
    let responses = std::fs::read_to_string(out.join("responses.jsonl")).expect("responses");
    assert_eq!(responses.lines().count(), 3);
    // The target says what it says alone.
    let first: Value = serde_json::from_str(responses.lines().next().expect("a line")).expect("JSON");
    let index = first["index"].as_u64().expect("an index") as usize;
    let prompt = ["the thing", "and the other?", "the first"][index];
    let alone = pard(&["generate", "-m", name(&MODELS.target), "--chat", "-p", prompt, "-n", "20"]);
    let said = first["messages"][1]["content"].as_str().expect("an answer").to_owned();
    assert!(said.starts_with(alone.stdout.trim_end_matches('\n')), "{said:?}, alone {:?}", alone.stdout);

    let ended = adapt(&folder.join("none"), &prompts, &["--loss", "teacher"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("--teacher"), "{}", ended.stderr);
}
