//! Commands about this machine: `pard models`, `pard pull`, `pard doctor`; and the output for shells and manuals.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{Ended, MODELS, command, json_of, name, pard};
use crate::support::tiny_model::Recipe;

fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("machine").join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// A snapshot of `repository` as the hub's tools lay it out, with links to its files where there are links.
fn repository(hub: &Path, repository: &str) -> PathBuf {
    let root = hub.join(format!("models--{}", repository.replace('/', "--")));
    let snapshot = root.join("snapshots").join("0123");
    for folder in [&snapshot, &root.join("refs"), &root.join("blobs")] {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    std::fs::write(root.join("refs/main"), "0123").expect("the reference");
    Recipe::llama(5).write(&snapshot);
    #[cfg(unix)]
    for entry in std::fs::read_dir(&snapshot).expect("a folder").flatten() {
        let blob = root.join("blobs").join(entry.file_name());
        std::fs::rename(entry.path(), &blob).expect("a blob");
        std::os::unix::fs::symlink(&blob, entry.path()).expect("a link");
    }
    snapshot
}

fn with_caches(arguments: &[&str], caches: &Path) -> Command {
    let mut command = command(arguments);
    command.env("PARD_CACHE", caches).env("HF_HUB_CACHE", caches.join("hub"));
    command
}

fn run(mut command: Command) -> Ended {
    Ended::of(command.output().expect("running pard"))
}

#[test]
fn models_in_the_caches_are_listed_with_their_sizes() {
    let caches = folder("models");
    let none = run(with_caches(&["models"], &caches));
    assert_eq!((none.code, none.stdout.as_str()), (Some(0), ""));
    assert!(none.stderr.contains("pard pull") && none.stderr.contains(name(&caches)), "{}", none.stderr);
    assert_eq!(run(with_caches(&["models", "--json"], &caches)).stdout, "[]\n");

    std::fs::write(caches.join("smollm2-135m-instruct-q4_1.gguf"), vec![0; 2_500_000]).expect("a file");
    let hub = caches.join("hub");
    let whole = repository(&hub, "owner/whole");
    let size: u64 = std::fs::read_dir(&whole)
        .expect("a folder")
        .flatten()
        .map(|entry| std::fs::metadata(entry.path()).expect("a file").len())
        .sum();
    std::fs::remove_file(repository(&hub, "owner/cut-off").join("model.safetensors")).expect("weights");
    std::fs::write(repository(&hub, "a/bert").join("config.json"), "{\"model_type\": \"bert\"}").expect("a file");
    std::fs::create_dir_all(hub.join("models--owner--begun/blobs")).expect("a folder");
    std::fs::create_dir_all(hub.join("datasets--owner--data")).expect("a folder");

    let list = run(with_caches(&["models", "--json"], &caches));
    let list: Value = serde_json::from_str(&list.stdout).expect("JSON");
    let of =
        |field: &str| list.as_array().expect("a list").iter().map(|model| model[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("name"), ["smollm2", "a/bert", "owner/begun", "owner/cut-off", "owner/whole"]);
    assert_eq!(of("state"), ["ready", "unsupported", "incomplete", "incomplete", "ready"]);
    // The reference's four bytes are on the disk too.
    assert_eq!(of("bytes")[4], json!(size + 4), "a link and what it leads to count once");
    assert_eq!(of("reason")[3], "model.safetensors");
    let text = run(with_caches(&["models"], &caches)).stdout;
    let line = |model: &str| text.lines().find(|line| line.starts_with(model)).unwrap_or_default().to_owned();
    assert!(line("smollm2").contains("2.5 MB  ready") || line("smollm2").contains("2.5 MB"), "{text}");
    assert!(line("owner/cut-off").ends_with("lacks model.safetensors; pard pull owner/cut-off"), "{text}");
    assert!(line("a/bert").ends_with("not a model that pard runs"), "{text}");
    assert!(text.trim_end().ends_with("in all"), "{text}");

    // `pull` fetches nothing offline, and only repositories.
    run(with_caches(&["pull", "owner/other"], &caches)).expect_error(1, &["owner/other", "HF_HUB_OFFLINE"]);
    run(with_caches(&["pull", name(&whole)], &caches)).expect_error(1, &["no repository"]);
    let default = run(with_caches(&["pull", "smollm2"], &caches));
    assert_eq!(default.code, Some(0), "{}", default.stderr);
    assert!(default.stdout.trim_end().ends_with("smollm2-135m-instruct-q4_1.gguf"), "{}", default.stdout);
    pard(&["pull", "smollm2"]).expect_error(1, &["pard pull HuggingFaceTB/SmolLM2-135M-Instruct", "./run model"]);
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let state = |report: &Value, check: &str| {
        let checks = report["checks"].as_array().expect("a list");
        let found =
            checks.iter().find(|found| found["name"] == check).unwrap_or_else(|| panic!("no {check}: {report}"));
        assert_eq!(
            found["advice"].is_string(),
            !["ok", "skipped"].contains(&found["state"].as_str().expect("a state"))
        );
        found["state"].as_str().expect("a state").to_owned()
    };
    let healthy = json_of(&["doctor", "--json", "-m", name(&MODELS.target)]);
    assert_eq!(healthy["ok"], true, "{healthy}");
    for check in ["device", "limits", "kernels", "memory bandwidth", "model", "answer"] {
        assert_eq!(state(&healthy, check), "ok", "{healthy}");
    }
    let adapter = &healthy["checks"][0];
    let says = |field: &str, part: &str| adapter[field].as_str().is_some_and(|text| text.contains(part));
    assert_eq!(says("advice", "Mesa 26"), says("found", "llvmpipe Mesa 22"), "{adapter}");

    let ended = pard(&["doctor"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    let line = |begin: &str| ended.stdout.lines().position(|line| line.starts_with(begin));
    let at = line("failed   default model").unwrap_or_else(|| panic!("{}", ended.stdout));
    assert!(
        ended.stdout.lines().nth(at + 1).is_some_and(|advice| advice.contains("pard pull HuggingFaceTB/")),
        "{}",
        ended.stdout
    );
    assert!(line("skipped  answer").is_some() && line("1 check failed").is_some(), "{}", ended.stdout);

    let blind = pard(&["doctor", "--json", "-m", name(&MODELS.target), "--device", "no such card"]);
    assert_eq!(blind.code, Some(1));
    let blind: Value = serde_json::from_str(&blind.stdout).expect("JSON");
    assert_eq!((state(&blind, "adapter").as_str(), state(&blind, "kernels").as_str()), ("failed", "skipped"));
    assert_eq!((state(&blind, "model").as_str(), state(&blind, "answer").as_str()), ("ok", "skipped"));
}

#[cfg(any(target_os = "linux", windows))]
#[test]
fn where_there_is_no_driver_the_advice_is_for_this_system() {
    let nothing = folder("no-driver").join("nothing.json");
    let mut devices = command(&["devices", "--backend", "vulkan"]);
    devices.env("VK_DRIVER_FILES", &nothing).env("VK_ICD_FILENAMES", &nothing);
    let advice = if cfg!(windows) { "WARP" } else { "mesa-vulkan-drivers" };
    run(devices).expect_error(1, &["no GPU adapter", advice]);
}

#[test]
fn shells_and_manuals_know_every_command() {
    let help = pard(&["--help"]).stdout;
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help" && help.contains(&format!("\n  {command} ")))
        .collect();
    assert!(commands.contains(&"chat") && commands.contains(&"doctor"), "{help}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ended = pard(&["completions", shell]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{shell}");
        for command in commands.iter().chain(&["max-tokens"]) {
            assert!(ended.stdout.contains(command), "no {command} for {shell}");
        }
    }
    assert_eq!(pard(&["completions", "abacus"]).code, Some(2));
    if cfg!(unix) {
        let script = folder("shells").join("pard.bash");
        std::fs::write(&script, pard(&["completions", "bash"]).stdout).expect("a script");
        let asked = format!(
            ". {}; COMP_WORDS=(pard do); COMP_CWORD=1; _pard pard do pard; echo \"${{COMPREPLY[*]}}\"",
            name(&script)
        );
        let output = Command::new("bash").args(["-c", &asked]).output().expect("bash");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "doctor", "{output:?}");
    }

    let pages = folder("manual").join("man1");
    let ended = pard(&["man", name(&pages)]);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "", ""));
    for command in &commands {
        let page = std::fs::read_to_string(pages.join(format!("pard-{command}.1"))).expect("a page");
        assert!(page.contains(".SH SYNOPSIS"), "{command}");
    }
    assert!(pages.join("pard.1").is_file());
    pard(&["man", name(&pages.join("pard.1"))]).expect_error(1, &["cannot write", "pard.1"]);
}

/// Ways to open the device and to compile its kernels that change no bit.
#[test]
fn every_way_to_open_the_device_writes_the_same_tokens() {
    let arguments = ["generate", "-m", name(&MODELS.target), "--raw", "-p", "the other thing", "-n", "12", "-q"];
    let with = |variables: &[(&str, &str)]| {
        let mut command = command(&arguments);
        command.envs(variables.iter().copied());
        let output = command.output().expect("running pard");
        assert!(output.status.success(), "{variables:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let usual = with(&[("PARD_ROBUST", "1")]);
    assert!(!usual.is_empty());
    for variables in [[("PARD_ROBUST", "0")], [("PARD_UNROLL", "8000")], [("PARD_LABELS", "1")], [("PARD_AUDIT", "1")]]
    {
        assert_eq!(with(&variables), usual, "{variables:?}");
    }
}

#[test]
fn doctor_says_where_the_driver_checks_no_bounds() {
    let found = |robust: &str| {
        let mut command = command(&["doctor", "-m", name(&MODELS.target), "--json"]);
        let output = command.env("PARD_ROBUST", robust).output().expect("running pard");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let checks = report["checks"].as_array().expect("checks").clone();
        let device = checks.into_iter().find(|check| check["name"] == "device").expect("the device");
        device["found"].as_str().expect("words").to_owned()
    };
    assert!(!found("1").contains("bounds checks"));
    let is_vulkan = json_of(&["devices", "--json"]).as_array().expect("adapters").iter().any(|adapter| {
        assert_eq!(adapter["shader_compiler"].is_string(), adapter["backend"] == "dx12", "{adapter}");
        adapter["chosen"] == true && adapter["backend"] == "vulkan"
    });
    assert_eq!(found("0").ends_with(", without the driver's bounds checks"), is_vulkan);
}
