//! `pard.py`, run by the system's Python over the staged library.

use std::path::Path;
use std::process::Command;

use super::library::{LIBRARY, run, skip};
use super::{MODELS, answer_of_the_engine};

/// Output of `script` for these arguments; none where there is no Python.
fn python(test: &str, script: &Path, arguments: &[&str]) -> Option<String> {
    let works = |name: &&str| {
        let script = "import sys; sys.exit(sys.version_info < (3, 9))";
        Command::new(name).args(["-c", script]).output().is_ok_and(|output| output.status.success())
    };
    let Some(name) = ["python3", "python"].into_iter().find(works).filter(|_| !cfg!(windows)) else {
        skip(&format!("{test}: there is no Python 3.9"));
        return None;
    };
    let mut command = Command::new(name);
    command.arg("-B").arg(script).args(arguments).env("PYTHONPATH", LIBRARY.folder.join("python"));
    Some(String::from_utf8_lossy(&run(&mut command).stdout).into_owned())
}

#[test]
fn python_answers_as_the_engine_does() {
    let [target, draft] = [&MODELS.target, &MODELS.draft].map(|path| path.to_str().expect("a path in UTF-8"));
    let question = "Wer da? 日本";
    let check = Path::new(super::ROOT).join("tests/c/check.py");
    let Some(text) = python("pard.py", &check, &[target, draft, question, "40"]) else { return };
    let expected = format!("{}\n", answer_of_the_engine(target, question, 40));
    assert_eq!(text, expected);
}

#[test]
fn the_documented_python_programs_answer() {
    let document = std::fs::read_to_string(Path::new(super::ROOT).join("docs/c-and-python.md")).expect("the document");
    let folder = tempfile::tempdir().expect("a folder");
    let programs = document.split("```python\n").skip(1);
    assert!(programs.clone().count() > 1, "{document}");
    for program in programs {
        let (program, _) = program.split_once("```").expect("its end");
        let script = folder.path().join("answer.py");
        std::fs::write(&script, program).expect("writing");
        let Some(text) = python("the documented programs", &script, &[]) else { return };
        assert!(text.to_lowercase().contains("red") && text.trim_end().lines().count() > 1, "{text}");
    }
}
