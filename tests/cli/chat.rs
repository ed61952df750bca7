//! `pard chat`: several turns, from a pipe and on a terminal.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Ended, MODELS, command, json_of, name, with_input};

/// A file's path in an empty folder of this test's own.
fn file(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chat").join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder.join("conversation.json")
}

/// A chat whose lines come from a pipe.
fn chat(more: &[&str], lines: &[&str]) -> Ended {
    let arguments = [&["chat", "-m", name(&MODELS.target)], more].concat();
    with_input(&arguments, lines.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes())
}

fn messages(path: &Path) -> Vec<(String, String)> {
    let json: Value = serde_json::from_slice(&std::fs::read(path).expect("a conversation")).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let messages = json["messages"].as_array().expect("a list");
    messages.iter().map(|message| (text(&message["role"]), text(&message["content"]))).collect()
}

#[test]
fn a_conversation_from_a_pipe_goes_on_from_turn_to_turn() {
    let path = file("turns");
    let save = format!("/save {}", name(&path));
    let lines = ["the other", "", "//and the thing", "/stats", &save, "/exit", "unheard"];
    let ended = chat(&["-n", "12", "--system", "the rule"], &lines);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let said = messages(&path);
    let roles: Vec<&str> = said.iter().map(|(role, _)| role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    let texts: Vec<&str> = said.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!([texts[0], texts[1], texts[3]], ["the rule", "the other", "/and the thing"]);
    assert_eq!(ended.stdout, format!("{}\n{}\n", texts[2], texts[4]));

    // The first turn is what `pard generate` writes; the second reads nothing of it again.
    let first = json_of(&[
        "generate",
        "-m",
        name(&MODELS.target),
        "--system",
        "the rule",
        "-p",
        "the other",
        "-n",
        "12",
        "--json",
    ]);
    assert_eq!(first["text"], texts[2]);
    let before = first["prompt_ids"].as_array().expect("a list").len() + 12;
    let answers: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("prompt: ")).collect();
    let resumed: Vec<&str> = answers.iter().filter(|line| line.contains(" new of ")).copied().collect();
    assert_eq!((answers.len(), resumed.len()), (2, 1), "{}", ended.stderr);
    let numbers: Vec<usize> = resumed[0].split([' ', ';']).filter_map(|word| word.parse().ok()).collect();
    assert_eq!(numbers[1] - numbers[0], before - 1, "all but the newest token: {}", resumed[0]);
    assert!(ended.stderr.contains("2 answers of 24 tokens"), "{}", ended.stderr);
    let of_last = ended.stderr.lines().find(|line| line.starts_with("the last one: ")).unwrap_or_default();
    assert!(of_last.contains("ar: 12 rounds of 1.00 tokens"), "{}", ended.stderr);
    let begin = ended.stderr.lines().next().unwrap_or_default();
    assert!(begin.contains(" on ") && begin.contains("; ar, K = 0; context: 512"), "{}", ended.stderr);
    assert!(!ended.stderr.contains('\x1b'), "colours in a file: {:?}", ended.stderr);

    // Another method says the same, from a conversation that is taken up again as well.
    let other = file("speculating");
    let save = format!("/save {}", name(&other));
    let target = name(&MODELS.target);
    let ended = chat(
        &["-n", "12", "--system", "the rule", "-d", target, "-k", "4", "-q"],
        &["the other", "//and the thing", &save],
    );
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(messages(&other), said);
    let (load, save) = (format!("/load {}", name(&path)), format!("/save {}", name(&other)));
    let ended = chat(&["-n", "4"], &[&load, "the end", "/system none", &save, "/reset", "/system the law", "/system"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for line in
        ["no system message from now on", "a new conversation", "system message from now on: the law", "the law"]
    {
        assert!(ended.stderr.lines().any(|found| found == line), "no {line:?} in {}", ended.stderr);
    }
    let longer = messages(&other);
    assert_eq!(longer[..4], said[1..]);
    assert_eq!((longer.len(), longer[4].1.as_str()), (6, "the end"));
}

#[test]
fn what_cannot_be_done_is_said_and_the_chat_goes_on() {
    let path = file("faults");
    std::fs::write(&path, "no conversation").expect("a file");
    let load = format!("/load {}", name(&path));
    let nowhere = path.with_file_name("nowhere").join("file");
    let save = format!("/save {}", name(&nowhere));
    let long = "the thing ".repeat(60);
    let lines = ["/what", "/load", &load, &save, &long, "/model no-such-model", "/reset", "the", "/model"];
    let ended = chat(&["-n", "4", "-c", "64"], &lines);
    assert_eq!(ended.code, Some(1), "a script is told: {}", ended.stderr);
    let errors: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let expected = [
        "there is no command /what; /help",
        "name a file",
        "it holds no conversation",
        "cannot write",
        "the context holds 64; it was not said. /reset",
        "no model \"no-such-model\"",
    ];
    assert_eq!(errors.len(), expected.len(), "{}", ended.stderr);
    for (error, part) in errors.iter().zip(expected) {
        assert!(error.contains(part), "no {part:?} in {error:?}");
    }
    assert_eq!(ended.stderr.matches("answer: 4 tokens").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("ar, K = 0; context: 64"), "{}", ended.stderr);

    // An answer that fills the context ends there.
    let ended = chat(&["-c", "40"], &["the", "and", "/reset", "the"]);
    assert_eq!(ended.stderr.matches("ended by: context; context: 40 of 40").count(), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("the context is full: /reset"), "{}", ended.stderr);

    let plain = with_input(&["chat", "-m", name(&MODELS.without_template)], b"the\n");
    plain.expect_error(1, &["has no chat template", "pard generate --raw"]);
    let bad = with_input(&["chat", "-m", name(&MODELS.target)], b"the \xff thing\n");
    bad.expect_error(1, &["standard input is not UTF-8", "byte 4"]);
}

#[test]
fn another_model_takes_the_conversation_over() {
    let change = format!("/model {} {}", name(&MODELS.draft), name(&MODELS.target));
    let ended = chat(&["-n", "6"], &["the other", &change, "and?", "/model", "/stats"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("drafted for by"), "{}", ended.stderr);
    assert!(ended.stderr.contains("2 answers of 12 tokens"), "{}", ended.stderr);
    let mut prompts = ended.stderr.lines().filter(|line| line.starts_with("prompt: "));
    assert!(
        prompts.next_back().is_some_and(|line| !line.contains(" new of ")),
        "its caches are its own: {}",
        ended.stderr
    );
}

/// A long prompt is read in pieces, which change neither the text nor what is counted.
#[test]
fn a_long_prompt_is_read_in_pieces() {
    let message = "the other thing ".repeat(100);
    let message = message.trim_end();
    let target = name(&MODELS.target);
    let whole = json_of(&["generate", "-m", target, "-p", message, "-n", "12", "-c", "2048", "--json"]);
    let tokens = whole["prompt_ids"].as_array().expect("a list").len();
    let spoken = chat(&["-n", "12", "-c", "2048"], &[message]);
    assert!(tokens > 300, "{tokens}");
    assert_eq!(spoken.stdout, format!("{}\n", whole["text"].as_str().expect("text")), "{}", spoken.stderr);
    assert!(spoken.stderr.contains(&format!("prompt: {tokens} tokens in ")), "{}", spoken.stderr);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_answer_and_not_the_chat() {
    let target = name(&MODELS.target);
    let mut chat = command(&["chat", "-m", target, "-c", "50000"]);
    let mut chat = chat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pard");
    let mut stdin = chat.stdin.take().expect("a pipe");
    let mut stdout = chat.stdout.take().expect("a pipe");
    let press = |id: u32| {
        assert!(Command::new("kill").args(["-INT", &id.to_string()]).status().expect("kill").success());
    };
    stdin.write_all(b"the thing\n").expect("a line");
    stdout.read_exact(&mut [0]).expect("the answer's first byte");
    press(chat.id());
    stdin.write_all(b"/stats\nthe other\n").expect("lines");
    // The line's end, and the second answer's first byte.
    let mut byte = [0];
    while byte[0] != b'\n' {
        stdout.read_exact(&mut byte).expect("the rest of the answer");
    }
    stdout.read_exact(&mut byte).expect("the next answer's first byte");
    press(chat.id());
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("the rest");
    let output = chat.wait_with_output().expect("its end");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let cancelled = |line: &&str| line.starts_with("prompt: ") && line.contains("ended by: cancelled");
    assert_eq!(stderr.lines().filter(cancelled).count(), 2, "{stderr}");
    assert!(stderr.contains("1 answer of "), "{stderr}");

    // While nothing is being answered it ends the program: nobody would see it otherwise.
    let mut idle = command(&["chat", "-m", target, "-n", "2"]);
    let mut idle = idle.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("pard");
    let mut stdin = idle.stdin.take().expect("a pipe");
    stdin.write_all(b"the thing\n").expect("a line");
    let mut stdout = idle.stdout.take().expect("a pipe");
    while byte[0] != b'\n' {
        stdout.read_exact(&mut byte).expect("the answer");
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    press(idle.id());
    assert_eq!(idle.wait().expect("its end").code(), Some(130));
}

/// `pard chat` on a terminal of its own, with these variables: what it shows when these keys are pressed, each once the
/// text before it has been shown.
#[cfg(target_os = "linux")]
fn on_a_terminal(variables: &[(&str, &str)], cache: &Path, keys: &[(&str, &str)]) -> Option<(String, Option<i32>)> {
    shown_on_a_terminal(&format!("chat -m {} -n 200", name(&MODELS.target)), variables, cache, keys)
}

/// The same of any command.
#[cfg(target_os = "linux")]
pub(crate) fn shown_on_a_terminal(
    arguments: &str,
    variables: &[(&str, &str)],
    cache: &Path,
    keys: &[(&str, &str)],
) -> Option<(String, Option<i32>)> {
    // `exec`, since a shell that waits for the chat gets the terminal's Ctrl-C as well, and some of them end by it.
    let chat = format!("exec timeout --foreground 120 {} {arguments}", env!("CARGO_BIN_EXE_pard"));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &chat, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
    script.envs(variables.iter().copied()).env("PARD_CACHE", cache);
    let spawned = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: a chat on a terminal: there is no command `script` here");
        return None;
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = child.stdout.take().expect("a pipe");
    let (mut shown, mut seen, mut chunk) = (Vec::new(), 0, [0; 4096]);
    for (awaited, keys) in keys {
        let find = |shown: &[u8]| shown.windows(awaited.len()).position(|part| part == awaited.as_bytes());
        let at = loop {
            if let Some(at) = find(&shown[seen..]) {
                break at;
            }
            let count = stdout.read(&mut chunk).expect("the terminal");
            assert!(count > 0, "no {awaited:?} in {:?}", String::from_utf8_lossy(&shown));
            shown.extend_from_slice(&chunk[..count]);
        };
        seen += at + awaited.len();
        stdin.write_all(keys.as_bytes()).expect("keys");
    }
    stdout.read_to_end(&mut shown).expect("the rest");
    let code = child.wait().expect("its end").code();
    Some((String::from_utf8_lossy(&shown).into_owned(), code))
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_has_editing_a_history_and_colours_unless_they_are_forbidden() {
    let cache = file("terminal").with_file_name("cache");
    // Ctrl-C at the prompt, a line that is corrected, the line before called back, a command that is completed, Ctrl-D.
    let keys = [
        ("> ", "\x03"),
        ("ends the chat", ""),
        ("> ", "the otheX\x7fr\r"),
        ("prompt: ", ""),
        ("> ", "\x1b[A\r"),
        ("prompt: ", ""),
        ("> ", "/sta\t\r"),
        (" answers of ", ""),
        ("> ", "\x04"),
    ];
    let Some((shown, code)) = on_a_terminal(&[], &cache, &keys) else { return };
    assert_eq!(code, Some(0), "{shown:?}");
    assert!(shown.contains("2 answers of "), "{shown:?}");
    assert!(shown.contains("\x1b[2mprompt: "), "statistics are pale: {shown:?}");
    let history = std::fs::read_to_string(cache.join("chat-history")).expect("the history");
    assert_eq!(history.matches("the other").count(), 1, "{history}");
    assert!(history.contains("/stats"), "{history}");

    // Another session knows them; no colours now; Ctrl-C ends the answer, however early it comes.
    let keys = [
        ("> ", "\x1b[A\x1b[A\r"),
        ("prompt: ", ""),
        ("> ", "the end\r"),
        ("\x1b[?2004l\r\n", "\x03"),
        ("ended b", ""),
        ("> ", "/exit\r"),
    ];
    let (shown, code) = on_a_terminal(&[("NO_COLOR", "1")], &cache, &keys).expect("a terminal");
    assert_eq!(code, Some(0), "{shown:?}");
    assert!(shown.contains("ended by: cancelled") || shown.contains("ended before the answer began"), "{shown:?}");
    assert!(shown.contains("prompt: ") && !shown.contains("\x1b[2m"), "{shown:?}");
    assert!(!shown.contains("^C"), "{shown:?}");
}
