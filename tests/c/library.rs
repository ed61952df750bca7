//! The libraries that C programs link, and what they and the header promise each other.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use crate::{
    PardAnswerOptions, PardDeviceOptions, PardFile, PardLikelyToken, PardLoadOptions, PardMessage, PardRound,
    PardSessionOptions, PardStatistics, PardTokenBias, PardTokenLogprobs, pard_status_name,
};

/// The folder of `pard.h`.
pub fn include() -> PathBuf {
    Path::new(super::ROOT).join("engine/c")
}

/// The folder that `./run stage` lays out.
pub struct Library {
    pub folder: PathBuf,
    /// System libraries that the static library has to be linked with.
    pub system_libraries: Vec<String>,
}

impl Library {
    pub fn libraries(&self) -> PathBuf {
        self.folder.join("lib")
    }
}

pub static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let temporary = &*super::TEMPORARY;
    let folder = temporary.join("stage");
    let mut command = Command::new("bash");
    command.current_dir(super::ROOT).arg("run").arg("stage").arg(&folder);
    command.env("CARGO_TARGET_DIR", temporary.parent().expect("the target folder"));
    if std::env::var_os("PARD_PROFILE").is_none() {
        command.env("PARD_PROFILE", if cfg!(debug_assertions) { "dev" } else { "release" });
    }
    run(&mut command);
    let package = std::fs::read_to_string(folder.join("lib/pkgconfig/pard.pc")).expect("a pkg-config file");
    let libraries = package.lines().find_map(|line| line.strip_prefix("Libs.private: ")).expect("system libraries");
    Library { system_libraries: libraries.split_whitespace().map(str::to_owned).collect(), folder }
});

/// Runs `command`, which must succeed.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    output
}

/// The system's compiler for `language`, `C` or `C++`; where there is none, a line says what was not tested.
pub fn compiler(language: &str, test: &str) -> Option<Command> {
    let (variable, usual) = if language == "C" { ("CC", "cc") } else { ("CXX", "c++") };
    let name = std::env::var_os(variable).unwrap_or_else(|| OsString::from(usual));
    let works =
        !cfg!(windows) && Command::new(&name).arg("--version").output().is_ok_and(|output| output.status.success());
    if !works {
        skip(&format!("{test}: there is no {language} compiler ({})", name.display()));
        return None;
    }
    let mut command = Command::new(name);
    command.arg(if language == "C" { "-std=c99" } else { "-std=c++17" });
    command.args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-I"]).arg(include());
    Some(command)
}

/// Says what was not tested, past the test harness, which keeps what a passing test prints to itself.
pub fn skip(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(include().join("pard.h")).expect("the header");
    let code: String = header.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, code)| code)).collect();
    let names = code.match_indices("pard_").filter_map(|(at, _)| {
        let rest = &code[at..];
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')?;
        let begins_a_word = !code[..at].ends_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_');
        (begins_a_word && rest[end..].starts_with('(')).then(|| rest[..end].to_owned())
    });
    names.collect()
}

/// The symbols that `file` defines for others, as `nm` lists them.
fn defined(file: &Path, options: &[&str]) -> BTreeSet<String> {
    let output = run(Command::new("nm").args(options).arg(file));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let symbols = text.lines().filter_map(|line| line.split_whitespace().nth(2));
    let prefix = if cfg!(target_os = "macos") { "_" } else { "" };
    symbols.filter_map(|symbol| symbol.strip_prefix(prefix)).map(str::to_owned).collect()
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let declared = declared();
    assert!(declared.len() > 20 && declared.contains("pard_session_run"), "{declared:?}");
    if cfg!(windows) {
        return skip("exported symbols: they are compared on Linux and macOS");
    }
    let library = LIBRARY.libraries().join(format!("libpard{}", std::env::consts::DLL_SUFFIX));
    let options: &[&str] = if cfg!(target_os = "macos") { &["-gU"] } else { &["-D", "--defined-only"] };
    assert_eq!(defined(&library, options), declared, "{}", library.display());
    let archive = LIBRARY.libraries().join("libpard.a");
    let ours = defined(&archive, &["-g"]).into_iter().filter(|symbol| symbol.starts_with("pard_"));
    assert_eq!(ours.collect::<BTreeSet<_>>(), declared, "{}", archive.display());
}

#[test]
fn pkg_config_finds_the_staged_library() {
    let has_one = Command::new("pkg-config").arg("--version").output().is_ok_and(|output| output.status.success());
    if cfg!(windows) || !has_one {
        return skip("the pkg-config file: there is no pkg-config");
    }
    let mut command = Command::new("pkg-config");
    command.args(["--cflags", "--libs", "pard"]).env("PKG_CONFIG_PATH", LIBRARY.libraries().join("pkgconfig"));
    let flags = String::from_utf8_lossy(&run(&mut command).stdout).into_owned();
    let folder_of = |option: &str| {
        let flag = flags.split_whitespace().find_map(|flag| flag.strip_prefix(option));
        PathBuf::from(flag.unwrap_or_else(|| panic!("no {option} in {flags}")))
    };
    assert!(folder_of("-I").join("pard.h").is_file(), "{flags}");
    assert!(folder_of("-L").join("libpard.a").is_file() && flags.contains("-lpard"), "{flags}");
    let mut version = Command::new("pkg-config");
    version.args(["--modversion", "pard"]).env("PKG_CONFIG_PATH", LIBRARY.libraries().join("pkgconfig"));
    assert_eq!(String::from_utf8_lossy(&run(&mut version).stdout).trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_header_is_c99_and_cpp17() {
    let folder = tempfile::tempdir().expect("a folder");
    for (language, file) in [("C", "header.c"), ("C++", "header.cpp")] {
        let Some(mut compiler) = compiler(language, "the header") else { continue };
        let source = folder.path().join(file);
        // Twice, and before anything else: it needs no other header, and may be included by several.
        std::fs::write(&source, "#include \"pard.h\"\n#include \"pard.h\"\nint main(void) { return PARD_OK; }\n")
            .expect("writing");
        run(compiler.arg("-fsyntax-only").arg(&source));
    }
}

/// The size of a struct, and the place of each of its fields, here; and the C expressions of the same.
macro_rules! layout {
    ($type:ty, $name:literal: $($field:ident),+) => {
        [(format!("sizeof({})", $name), size_of::<$type>())].into_iter().chain([
            $((format!("offsetof({}, {})", $name, stringify!($field)), std::mem::offset_of!($type, $field))),+
        ])
    };
}

#[test]
fn structs_and_constants_are_the_same_on_both_sides() {
    let Some(mut compiler) = compiler("C", "the layout of structs") else { return };
    let expected: Vec<(String, usize)> = layout!(PardDeviceOptions, "pard_device_options": size, device, backend)
        .chain(layout!(PardLoadOptions, "pard_load_options":
            size, weights, cache, products, mask_token, progress, user, target_states))
        .chain(layout!(PardFile, "pard_file": name, bytes, size))
        .chain(layout!(PardMessage, "pard_message": role, content))
        .chain(layout!(PardSessionOptions, "pard_session_options": size, method, drafts, context, run_ahead, acceptance, ngram_longest, ngram_shortest, with_ngrams))
        .chain(layout!(PardTokenBias, "pard_token_bias": token, bias))
        .chain(layout!(PardLikelyToken, "pard_likely_token": token, logprob))
        .chain(layout!(PardTokenLogprobs, "pard_token_logprobs": token, logprob, top, top_count))
        .chain(layout!(PardAnswerOptions, "pard_answer_options":
            size, max_tokens, stop, stop_count, thinking, temperature, seed, top_k, top_p, min_p, repetition_penalty,
            presence_penalty, frequency_penalty, logit_bias, logit_bias_count, banned, banned_count, logprobs,
            top_logprobs, json_schema, regex, grammar, choices, choice_count, min_tokens))
        .chain(layout!(PardRound, "pard_round":
            size, text, text_length, tokens, token_count, proposed, accepted, seconds, finish, logprobs,
            logprob_count))
        .chain(layout!(PardStatistics, "pard_statistics":
            size, prompt_tokens, answer_tokens, committed_tokens, rounds, tokens_per_round, prefill_seconds,
            decode_seconds, tokens_per_second, mean_drafts, proposed, accepted, method, finish))
        .chain((0..11).map(|status| (name_of(status), status as usize)))
        .collect();
    let lines = expected.iter().map(|(expression, _)| format!("    printf(\"%zu\\n\", (size_t)({expression}));\n"));
    let program = format!(
        "#include <stdio.h>\n#include \"pard.h\"\nint main(void) {{\n{}    return 0;\n}}\n",
        lines.collect::<String>()
    );
    let folder = tempfile::tempdir().expect("a folder");
    let (source, binary) = (folder.path().join("layout.c"), folder.path().join("layout"));
    std::fs::write(&source, program).expect("writing");
    run(compiler.arg(&source).arg("-o").arg(&binary));
    let output = run(&mut Command::new(binary));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<usize> = printed.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(numbers.len(), expected.len());
    for ((expression, here), there) in expected.iter().zip(numbers) {
        assert_eq!(there, *here, "{expression}");
    }
    assert_eq!((name_of(11), name_of(-1)), ("PARD_UNKNOWN".to_owned(), "PARD_UNKNOWN".to_owned()));
}

fn name_of(status: i32) -> String {
    // SAFETY: it is a string that lives for ever.
    unsafe { std::ffi::CStr::from_ptr(pard_status_name(status)) }.to_string_lossy().into_owned()
}
