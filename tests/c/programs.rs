//! Programs in C and C++ that load a model and answer a question, linked with either library.

use std::path::{Path, PathBuf};
use std::process::Command;

use pard::checkpoint::options::SourceOptions;
use pard::checkpoint::resolve;

use super::library::{LIBRARY, compiler, run, skip};
use super::{MODELS, answer_of_the_engine};

const QUESTION: &str = "Name three colours of the rainbow.";

/// Compiles `file` and links it, with the shared library or the static one; none where there is no compiler.
fn program(file: &str, language: &str, is_static: bool) -> Option<PathBuf> {
    let mut compiler = compiler(language, file)?;
    let source = Path::new(super::ROOT).join("tests/c").join(file);
    let binary = super::TEMPORARY.join(format!("{file}-{}", if is_static { "static" } else { "shared" }));
    let library = LIBRARY.libraries();
    compiler.arg(source).arg("-o").arg(&binary);
    if is_static {
        compiler.arg(library.join("libpard.a")).args(&LIBRARY.system_libraries);
    } else {
        compiler.arg("-L").arg(&library).arg("-lpard").arg(format!("-Wl,-rpath,{}", library.display()));
    }
    run(&mut compiler);
    Some(binary)
}

/// Runs a program and returns its standard output.
#[track_caller]
fn answer(program: &Path, arguments: &[&str]) -> String {
    let output = run(Command::new(program).args(arguments));
    String::from_utf8(output.stdout).expect("an answer in UTF-8")
}

#[test]
fn a_c_program_answers_as_the_engine_does() {
    let Some(program) = program("smoke.c", "C", false) else { return };
    let [target, draft] = [&MODELS.target, &MODELS.draft].map(|path| path.to_str().expect("a path in UTF-8"));
    let text = answer(&program, &[target, QUESTION, "40"]);
    let expected = answer_of_the_engine(target, QUESTION, 40);
    assert_eq!(text, expected);
    assert!(!text.is_empty());
    for draft in [draft, "itself"] {
        assert_eq!(answer(&program, &[target, QUESTION, "40", draft]), text, "drafted by {draft}");
    }
}

#[test]
fn the_documented_c_program_answers() {
    let Some(mut compiler) = compiler("C", "the documented program") else { return };
    let document = std::fs::read_to_string(Path::new(super::ROOT).join("docs/c-and-python.md")).expect("the document");
    let (_, begin) = document.split_once("```c\n").expect("a program in C");
    let (program, _) = begin.split_once("```").expect("its end");
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("answer.c");
    std::fs::write(&source, program).expect("writing");
    let (libraries, binary) = (LIBRARY.libraries(), folder.path().join("answer"));
    compiler.arg(&source).arg("-L").arg(&libraries).arg("-lpard").arg(format!("-Wl,-rpath,{}", libraries.display()));
    run(compiler.arg("-o").arg(&binary));
    assert!(answer(&binary, &[]).to_lowercase().contains("red"));
}

/// The default model, by the shared library from C and by the static one from C++.
#[test]
fn c_and_cpp_programs_run_the_default_model() {
    if let Err(error) = resolve::resolve("smollm2", &SourceOptions::from_env()) {
        return skip(&format!("the default model from C and C++: {error}"));
    }
    let programs = [program("smoke.c", "C", false), program("smoke.cpp", "C++", true)];
    let expected = answer_of_the_engine("smollm2", QUESTION, 12);
    assert!(expected.contains(' '), "{expected}");
    for program in programs.into_iter().flatten() {
        assert_eq!(answer(&program, &["smollm2", QUESTION, "12"]), expected, "{}", program.display());
    }
}
