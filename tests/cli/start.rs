//! The start: what `pard` shows without a command, and what it keeps from one start to the next.

use std::time::{Duration, SystemTime};

use super::{Ended, MODELS, command, name};

/// On a terminal it says what is here and what to try; elsewhere it is a mistake, as any command without arguments is.
#[test]
fn without_a_command_there_is_a_welcome_on_a_terminal() {
    let ended = super::pard(&[]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("Usage: pard"), "{}", ended.stderr);
    #[cfg(target_os = "linux")]
    {
        let cache = tempfile::tempdir().expect("a folder");
        let home = [("HF_HOME", name(cache.path()))];
        let Some((shown, code)) = super::chat::shown_on_a_terminal("", &home, cache.path(), &[]) else { return };
        assert_eq!(code, Some(0), "{shown}");
        for part in ["adapter  ", "none here yet", "pard chat -m Qwen/Qwen3-0.6B", "pard serve", "pard doctor"] {
            assert!(shown.contains(part), "no {part:?} in {shown}");
        }
        std::fs::write(cache.path().join("smollm2-135m-instruct-q4_1.gguf"), "GGUF").expect("a model");
        let (shown, _) = super::chat::shown_on_a_terminal("", &home, cache.path(), &[]).expect("a terminal");
        assert!(shown.contains("smollm2 (4 B)") && shown.contains("pard chat\r\n"), "{shown}");
    }
}

/// Mesa's layer would write a line to standard error.
#[test]
fn nothing_but_our_own_words_is_shown_without_a_desktop_session() {
    let mut devices = command(&["devices"]);
    let output = devices.env_remove("XDG_RUNTIME_DIR").env_remove("NODEVICE_SELECT").output().expect("running pard");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn the_costs_of_passes_are_measured_once() {
    let cache = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        Ended::of(command(arguments).env("PARD_CACHE", cache.path()).output().expect("running pard"))
    };
    let (target, draft) = (name(&MODELS.target), name(&MODELS.draft));
    let generate = ["generate", "-m", target, "-d", draft, "-p", "the", "-n", "12"];
    let [first, second] = [run(&generate), run(&generate)];
    assert!(first.stderr.contains("measures"), "{}", first.stderr);
    assert!(second.code == Some(0) && !second.stderr.contains("measures"), "{}", second.stderr);
    assert_eq!(first.stdout, second.stdout);
    // The draft's matrices are the target's in size, so that one table serves both.
    let forgotten = run(&["tune", "--forget", "-m", target]);
    assert!(forgotten.stderr.contains(": forgotten"), "{}", forgotten.stderr);
    let third = run(&generate);
    assert!(third.stderr.contains("measures"), "{}", third.stderr);
    // What was measured on a busy day does not count for ever.
    let days_ago = SystemTime::now() - Duration::from_secs(8 * 24 * 60 * 60);
    for entry in std::fs::read_dir(cache.path().join("tuning")).expect("the folder of measurements") {
        let file = std::fs::File::options().write(true).open(entry.expect("a file").path()).expect("a file");
        file.set_modified(days_ago).expect("a file's time");
    }
    let [fourth, fifth] = [run(&generate), run(&generate)];
    assert!(fourth.stderr.contains("measures"), "{}", fourth.stderr);
    assert!(fifth.code == Some(0) && !fifth.stderr.contains("measures"), "{}", fifth.stderr);
}

#[test]
fn a_choice_among_gguf_files_is_told() {
    let hub = tempfile::tempdir().expect("a folder");
    let folder = hub.path().join("models--owner--tiny/snapshots/0123abc");
    std::fs::create_dir_all(&folder).expect("a folder");
    for file in ["tiny-Q8_0.gguf", "tiny-Q4_K_M.gguf"] {
        std::fs::write(folder.join(file), "GGUF").expect("a file");
    }
    let refs = hub.path().join("models--owner--tiny/refs");
    std::fs::create_dir_all(&refs).expect("a folder");
    std::fs::write(refs.join("main"), "0123abc").expect("a file");
    let inspect = |model: &str| {
        let output = command(&["inspect", model]).env("HF_HUB_CACHE", hub.path()).output().expect("running pard");
        Ended::of(output)
    };
    let chosen = inspect("owner/tiny");
    chosen.expect_error(1, &["tiny-Q4_K_M.gguf"]);
    assert!(chosen.stderr.starts_with("owner/tiny: tiny-Q4_K_M.gguf is taken"), "{}", chosen.stderr);
    let named = inspect("hf.co/owner/tiny:q8_0");
    named.expect_error(1, &["tiny-Q8_0.gguf"]);
    assert!(!named.stderr.contains("is taken"), "{}", named.stderr);
    inspect("https://example.com/owner/tiny").expect_error(1, &["example.com", "Hugging Face"]);
    inspect("owner/tiny:Q5_K_M").expect_error(1, &["Q5_K_M", "HF_HUB_OFFLINE"]);
}
