//! `pard profile` and `pard tune`.

use std::path::{Path, PathBuf};

use pard::low_level::gpu::shader_source;
use pard::low_level::ops::MAX_ROWS;
use serde_json::{Value, json};

use super::{Ended, MODELS, command, json_of, name, pard};

/// An empty folder of the given name.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key} in {value}"))
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

/// Checks what can be known without knowing times: who ran, how often, and over how much.
fn check(report: &Value, layers: f64) {
    let phases = list(report, "phases");
    assert_eq!(phases.len(), 4, "prompt and round of AR and of the draft's method");
    assert!(number(report, "read_bytes_per_second") > 1e6 && number(report, "multiply_flops_per_second") > 1e6);
    for phase in phases {
        // One clock is the device's, the other the host's.
        let busy = number(phase, "kernel_seconds") + number(phase, "gap_seconds");
        assert!(busy > 0.0 && busy <= 1.02 * number(phase, "wall_seconds"), "{phase}");
        for part in list(phase, "parts") {
            let shares: f64 = list(part, "kernels").iter().map(|kernel| number(kernel, "share")).sum();
            assert!((shares - 1.0).abs() < 1e-6, "{part}");
        }
    }
    let step = &phases[1];
    // Norm, products and attention of each layer; inputs, embedding, last norm, head, choice and its merge, accept.
    assert_eq!(number(step, "dispatches"), 8.0 * layers + 7.0, "{step}");
    let verify = &list(step, "parts")[0];
    assert_eq!(number(verify, "dispatches_per_layer"), 8.0, "{verify}");
    assert!(number(verify, "dispatches_per_pass") >= 8.0 * layers + 4.0, "{verify}");
    assert_eq!(list(step, "parts")[1]["dispatches_per_pass"], Value::Null, "{step}");
    let names = |phase: &Value| -> Vec<String> {
        list(phase, "parts").iter().map(|part| part["part"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(step), ["verify", "accept"]);
    assert_eq!(names(&phases[3]), ["draft", "verify", "accept"]);
}

#[test]
fn a_profile_counts_every_kernel_and_writes_a_trace() {
    let trace = folder("profile").join("trace.json");
    let target = name(&MODELS.target);
    let arguments = ["profile", "-m", target, "--prompt-tokens", "40", "--rounds", "3", "-k", "4", "--json"];
    let report = json_of(&[&arguments[..], &["--trace", name(&trace)]].concat());
    let layers = number(&json_of(&["inspect", target, "--json"])["config"], "num_hidden_layers");
    check(&report, layers);
    assert_eq!(report["phases"][1]["separate_passes"], false);
    check_trace(&trace, &report);

    let report = json_of(&[&arguments[..], &["--separate-passes"]].concat());
    check(&report, layers);
    assert_eq!(report["phases"][1]["separate_passes"], true);

    let text = pard(&arguments[..arguments.len() - 1]);
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    for part in [
        "measured here",
        "step of ar",
        "round of pard, K = 4",
        "matmul_rows",
        "of read",
        "before and after",
        "in each layer",
    ] {
        assert!(text.stdout.contains(part), "no {part:?} in {}", text.stdout);
    }
}

/// Masks of a grammar are work of the host.
#[test]
fn a_profile_shows_what_a_grammar_takes() {
    let profile = |form: [&'static str; 2]| {
        [&["profile", "-m", name(&MODELS.target), "--rounds", "2", "-k", "2", "--json"], &form[..]].concat()
    };
    let report = json_of(&profile(["--regex", "[a-z ]{90}"]));
    for step in [1, 3] {
        assert!(number(&report["phases"][step]["host_seconds"], "grammar") > 0.0, "{report}");
    }
    pard(&profile(["--choice", "a"])).expect_error(2, &["grammar", "first round"]);
}

/// Against the trace-event format: complete events and names of tracks, times that ascend on the device's track.
fn check_trace(path: &Path, report: &Value) {
    let text = std::fs::read_to_string(path).expect("a trace");
    let trace: Value = serde_json::from_str(&text).expect("JSON");
    let mut last_end = f64::NEG_INFINITY;
    let mut kernels = 0.0;
    for event in list(&trace, "traceEvents") {
        assert!(event["name"].is_string() && event["pid"].is_u64() && event["tid"].is_u64(), "{event}");
        match event["ph"].as_str() {
            Some("M") => assert!(event["args"]["name"].is_string(), "{event}"),
            Some("X") => {
                let (begin, duration) = (number(event, "ts"), number(event, "dur"));
                assert!(begin >= 0.0 && duration >= 0.0 && event["cat"].is_string(), "{event}");
                if event["cat"] == "kernel" {
                    assert!(begin >= last_end - 1e-3, "kernels run one after the other: {event}");
                    last_end = begin + duration;
                    kernels += 1.0;
                }
            }
            _ => panic!("{event}"),
        }
    }
    let rounds = [1.0, 3.0, 1.0, 3.0];
    let expected: f64 =
        list(report, "phases").iter().zip(rounds).map(|(phase, n)| n * number(phase, "dispatches")).sum();
    assert_eq!(kernels, expected);
}

/// A step's products are reported to read the model's size, and to compute two operations a weight: a share of the device's
/// rates that is counted twice would show here, on however noisy a machine.
#[test]
fn a_profile_counts_each_weight_once() {
    let report = json_of(&["profile", "-m", name(&MODELS.target), "--rounds", "1", "--json"]);
    let weights = number(&report["plan"], "weight_bytes");
    for (phase, rows) in [(1, 1.0), (3, 9.0)] {
        let parts = list(&report["phases"][phase], "parts");
        let verify = parts.iter().find(|part| part["part"] == "verify").expect("a target's pass");
        let products: Vec<_> = list(verify, "kernels").iter().filter(|line| line["kernel"] == "matmul_rows").collect();
        let sum = |key: &str| -> f64 { products.iter().map(|line| number(line, "calls") * number(line, key)).sum() };
        // The tied embedding is the head; padding to whole groups of lanes is no work.
        let weight_values = sum("flops") / (2.0 * rows);
        assert!(2.0 * weight_values <= weights && 2.0 * weight_values > 0.7 * weights, "{weight_values} of {weights}");
        assert!(sum("bytes") >= 2.0 * weight_values, "{products:?}");
    }
}

#[test]
fn edited_shaders_are_taken_from_a_folder() {
    let target = name(&MODELS.target);
    let profile = |folder: &Path| {
        Ended::of(
            command(&["profile", "-m", target, "--rounds", "1", "--shaders", name(folder)])
                .output()
                .expect("running pard"),
        )
    };
    let edited = folder("edited-shaders");
    std::fs::create_dir_all(edited.join("pieces/epilogue")).expect("folders");
    std::fs::create_dir_all(edited.join("kernels")).expect("a folder");
    let source = shader_source("epilogue/add").expect("a shader");
    std::fs::write(edited.join("pieces/epilogue/add.wgsl"), format!("// Edited.\n{source}")).expect("a shader");
    std::fs::write(edited.join("kernels/rope.wgsl"), shader_source("rope").expect("a shader")).expect("a shader");
    let ended = profile(&edited);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("edited shaders: epilogue/add\n"), "{}", ended.stderr);

    std::fs::write(edited.join("kernels/rope.wgsl"), "this is no shader").expect("a shader");
    profile(&edited).expect_error(1, &["rope"]);
    profile(&folder("no-shaders")).expect_error(2, &["no-shaders", "matmul_rows.wgsl"]);
    let nowhere = folder("no-trace").join("missing").join("trace.json");
    let arguments = ["profile", "-m", target, "--rounds", "1", "--trace", name(&nowhere)];
    pard(&arguments).expect_error(1, &["cannot write", "trace.json"]);
}

#[test]
fn a_tuned_model_writes_the_same_tokens() {
    let cache = folder("tune");
    let target = name(&MODELS.target);
    let run = |arguments: &[&str]| {
        let ended = Ended::of(command(arguments).env("PARD_CACHE", &cache).output().expect("running pard"));
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        ended
    };
    let generate = || -> Value {
        let more = ["-p", "the other thing", "-n", "20", "--json", "-d", target, "--mask-token", "5"];
        let ended = run(&[&["generate", "-m", target], &more[..]].concat());
        serde_json::from_str(&ended.stdout).expect("JSON")
    };
    let untuned = generate();
    assert_eq!(untuned["plan"]["tuned"], false);

    let tuned = run(&["tune", "-m", target, "--json"]);
    assert!(tuned.stderr.contains("measuring: "), "without a terminal lines tell of it: {}", tuned.stderr);
    let tuned: Value = serde_json::from_str(&tuned.stdout).expect("JSON");
    assert_eq!(list(&tuned, "pass_seconds").len(), MAX_ROWS);
    for matrix in list(&tuned, "matrices") {
        assert_eq!(list(matrix, "variants").len(), MAX_ROWS, "{matrix}");
    }
    let after = generate();
    assert_eq!((&after["plan"]["tuned"], &after["output_ids"]), (&json!(true), &untuned["output_ids"]));

    // A table that cannot be read, or that was measured for something else, counts for nothing.
    let file =
        std::fs::read_dir(cache.join("tuning")).expect("a folder").next().expect("a file").expect("a file").path();
    let text = std::fs::read_to_string(&file).expect("a table");
    for broken in [text[..text.len() / 2].to_owned(), text.replacen("\"engine\": \"", "\"engine\": \"0.0.0-", 1)] {
        std::fs::write(&file, broken).expect("a table");
        assert_eq!(generate()["plan"]["tuned"], false);
    }
    run(&["tune", "-m", target, "--forget"]);
    assert!(!file.exists());
    run(&["tune", "-m", target, "--forget"]);
}
