//! `pard respond`: conversations from prompts, in a file that a second run goes on with.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Ended, MODELS, name, pard};

/// An empty folder of this test's own.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("respond").join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn written(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out).expect("a file of responses");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    lines.sort_by_key(|line| line["index"].as_u64());
    lines
}

fn respond(prompts: &[&Path], out: &Path, more: &[&str]) -> Ended {
    let prompts: Vec<&str> = prompts.iter().map(|path| name(path)).collect();
    let arguments =
        [&["respond", "-m", name(&MODELS.target), "--out", name(out), "-n", "12", "--prompts"], &prompts[..], more];
    pard(&arguments.concat())
}

#[test]
fn prompts_of_every_form_become_conversations_and_a_second_run_goes_on() {
    let folder = folder("forms");
    let [first, second, out] = ["first.jsonl", "second.jsonl", "out.jsonl"].map(|file| folder.join(file));
    let chat = json!([
        {"role": "system", "content": "the rule"}, {"role": "user", "content": "the thing"},
        {"role": "assistant", "content": "an answer"},
    ]);
    let lines = [
        json!({"prompt": "the other"}).to_string(),
        json!({"messages": chat}).to_string(),
        "{\"prompt\": ".to_owned(),
        String::new(),
        json!({"category": "writing", "turns": ["the first", "the second"]}).to_string(),
    ];
    std::fs::write(&first, lines.map(|line| line + "\n").concat()).expect("prompts");
    let lines = [
        json!({"question": "and the thing?"}),
        json!({"answer": "none"}),
        json!({"instruction": "the other", "input": "and the thing", "output": "-"}),
        json!({"prompt": "the ".repeat(600)}),
    ];
    std::fs::write(&second, lines.map(|line| format!("{line}\n")).concat()).expect("prompts");

    let ended = respond(&[&first, &second], &out, &[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{}", ended.stderr);
    for part in ["first.jsonl:3: not JSON", "second.jsonl:2: it has no `prompt`", "second.jsonl:4: the prompt has"] {
        assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    }
    for part in ["3 of 8 lines were skipped", "5 responses, ", " tokens/s"] {
        assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    }
    let conversations = written(&out);
    let said = |line: &Value| {
        let messages = line["messages"].as_array().expect("messages").clone();
        let roles: Vec<&str> = messages.iter().filter_map(|message| message["role"].as_str()).collect();
        assert_eq!(roles[roles.len() - 2..], ["user", "assistant"], "{line}");
        assert!(["stop", "length"].contains(&line["finish_reason"].as_str().expect("a reason")), "{line}");
        (line["index"].as_u64().expect("an index"), messages[messages.len() - 2]["content"].as_str().map(str::to_owned))
    };
    let expected = [
        (0, "the other"),
        (1, "the thing"),
        (3, "the first"),
        (4, "and the thing?"),
        (6, "the other\n\nand the thing"),
    ];
    let expected = expected.map(|(index, text)| (index, Some(text.to_owned())));
    assert_eq!(conversations.iter().map(said).collect::<Vec<_>>(), expected);
    assert_eq!(conversations[1]["messages"][0], json!({"role": "system", "content": "the rule"}));

    // `generate` writes the same for the same prompt.
    let alone = pard(&["generate", "-m", name(&MODELS.target), "-p", "the other", "-n", "12", "-q"]);
    assert_eq!(alone.stdout.strip_suffix('\n'), conversations[0]["messages"][1]["content"].as_str());

    // Two lines, of which the second was cut off: the others are written again, one at a time, and are the same.
    let text = std::fs::read_to_string(&out).expect("responses");
    let second_line = text.match_indices('\n').next().expect("a line").0 + 20;
    std::fs::write(&out, &text[..second_line]).expect("a cut file");
    let ended = respond(&[&first, &second], &out, &["--parallel", "1"]);
    assert!(ended.code == Some(0) && ended.stderr.contains("4 responses, "), "{}", ended.stderr);
    assert_eq!(written(&out), conversations);
    let ended = respond(&[&first, &second], &out, &[]);
    assert!(ended.code == Some(0) && ended.stderr.contains("all 5 responses are there"), "{}", ended.stderr);
    // Other prompts do not go to the same file.
    respond(&[&second], &out, &[]).expect_error(1, &["out.jsonl", "another prompt"]);
    std::fs::write(&out, "{\"text\": 1}\n").expect("another file");
    respond(&[&first], &out, &[]).expect_error(1, &["out.jsonl:1", "--out"]);
}

#[test]
fn drawn_responses_follow_the_seed() {
    let folder = folder("drawn");
    let prompts = folder.join("prompts.jsonl");
    std::fs::write(&prompts, format!("{}\n", json!({"prompt": "the thing"})).repeat(6)).expect("prompts");
    let draw = |file: &str, more: &[&str]| {
        let out = folder.join(file);
        let ended = respond(&[&prompts], &out, &[&["--temperature", "0.8"], more].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        written(&out)
    };
    let drawn = draw("one", &["--seed", "4"]);
    assert_eq!(draw("same", &["--seed", "4", "--parallel", "2"]), drawn);
    assert_ne!(draw("other", &["--seed", "5"]), drawn);
    assert_ne!(drawn[0]["messages"], drawn[1]["messages"]);
    // What limits the draw and what changes logits is as for one answer: the likeliest token alone is no draw.
    let likeliest = draw("likeliest", &["--top-k", "1", "--seed", "9"]);
    let greedy = folder.join("greedy");
    assert_eq!(respond(&[&prompts], &greedy, &[]).code, Some(0));
    assert_eq!(likeliest, written(&greedy));
    let (list, listed) = (folder.join("prompts.json"), folder.join("listed"));
    std::fs::write(&list, format!("{:#}", json!([{"prompt": "the thing"}, {"prompt": "the thing"}]))).expect("prompts");
    assert_eq!(respond(&[&list], &listed, &[]).code, Some(0));
    assert_eq!(written(&listed), written(&greedy)[..2]);
    assert_ne!(draw("penalised", &["--top-k", "1", "--repetition-penalty", "2"]), likeliest);
    let ended = respond(&[&prompts], &folder.join("banned"), &["--ban", "99999999"]);
    ended.expect_error(2, &["--ban", "99999999"]);
}

#[test]
fn the_model_may_write_the_prompts_too() {
    let folder = folder("free");
    let out = folder.join("out.jsonl");
    let free = |more: &[&str]| {
        let arguments = ["respond", "-m", name(&MODELS.target), "--free", "12", "--out", name(&out), "-n", "200"];
        pard(&[&arguments[..], more].concat())
    };
    let ended = free(&["--temperature", "1.3"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("12 prompts, "), "{}", ended.stderr);
    let conversations = written(&out);
    assert!(!conversations.is_empty(), "some random text ends within 200 tokens: {}", ended.stderr);
    for line in &conversations {
        assert_eq!((&line["messages"][0]["role"], &line["messages"][1]["role"]), (&json!("user"), &json!("assistant")));
        assert_ne!(line["messages"][0]["content"], "");
    }
}

#[test]
fn what_cannot_be_responded_to_is_named() {
    let folder = folder("faults");
    let [prompts, out] = ["prompts.jsonl", "out.jsonl"].map(|file| folder.join(file));
    std::fs::write(&prompts, "{}\n\n[1]\n").expect("prompts");
    respond(&[&prompts], &out, &[]).expect_error(1, &["prompts.jsonl: no line holds a prompt"]);
    assert!(!out.exists(), "nothing was written");
    respond(&[&folder.join("missing.jsonl")], &out, &[]).expect_error(1, &["missing.jsonl"]);
    std::fs::write(&prompts, "{\"prompt\": \"the\"}\n").expect("prompts");
    respond(&[&prompts], &folder.join("no/such/folder"), &[]).expect_error(1, &["cannot write", "no/such/folder"]);
    for more in [["--temperature", "-1"], ["--parallel", "33"], ["--parallel", "0"], ["-n", "0"], ["--free", "2"]] {
        assert_eq!(respond(&[&prompts], &out, &more).code, Some(2), "{more:?}");
    }
    let plain = name(&MODELS.without_template);
    let arguments = ["respond", "-m", plain, "--prompts", name(&prompts), "--out", name(&out)];
    pard(&arguments).expect_error(1, &["chat template"]);
}
