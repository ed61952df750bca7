//! `pard.py`, run by the system's Python over the staged library.

use std::path::Path;
use std::process::Command;

use super::MODELS;
use super::library::{LIBRARY, run, skip};

/// Output of `tests/c_api/check.py` for these arguments; none where there is no Python.
fn python(test: &str, arguments: &[&str]) -> Option<String> {
    let works = |name: &&str| {
        let script = "import sys; sys.exit(sys.version_info < (3, 9))";
        Command::new(name).args(["-c", script]).output().is_ok_and(|output| output.status.success())
    };
    let Some(name) = ["python3", "python"].into_iter().find(works).filter(|_| !cfg!(windows)) else {
        skip(&format!("{test}: there is no Python 3.9"));
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("c_api").join("check.py");
    let mut command = Command::new(name);
    command.arg("-B").arg(script).args(arguments).env("PYTHONPATH", LIBRARY.folder.join("python"));
    Some(String::from_utf8_lossy(&run(&mut command).stdout).into_owned())
}

#[test]
fn python_answers_as_the_command_line_does() {
    let [target, draft] = [&MODELS.target, &MODELS.draft].map(|path| path.to_str().expect("a path in UTF-8"));
    let question = "Wer da? 日本";
    let Some(text) = python("pard.py", &[target, draft, question, "40"]) else { return };
    let mut pard = Command::new(env!("CARGO_BIN_EXE_pard"));
    pard.args(["generate", "-m", target, "--chat", "-p", question, "-n", "40", "--quiet"]);
    let expected = String::from_utf8(run(&mut pard).stdout).expect("an answer in UTF-8");
    assert_eq!(text, expected);
}
