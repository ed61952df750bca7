//! `pard bench`: the comparison of methods, and the tests of raw speed.

use std::io::Read;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Ended, MODELS, json_of, name, pard, spawned};

#[test]
fn bench_compares_the_methods_on_prompts_of_every_form() {
    let (target, draft) = (name(&MODELS.target), name(&MODELS.draft));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let prompts = folder.join("prompts.jsonl");
    let chat = json!([{"role": "user", "content": "the thing"}, {"role": "assistant", "content": "an answer"}]);
    let lines = [
        json!({"prompt": "the other"}),
        json!({"messages": chat}),
        json!({"category": "writing", "turns": ["the first", "the second"]}),
        json!({"data": "the thing", "answer": 42}),
        json!({"data": [chat]}),
    ];
    std::fs::write(&prompts, lines.map(|line| format!("{line}\n")).concat()).expect("prompts");
    let arguments = ["bench", "-m", target, "-d", draft, "-k", "3", "--prompts", name(&prompts), "-n", "12"];

    let report = json_of(&[&arguments[..], &["--json"]].concat());
    assert_eq!(report["prompts"], 5);
    let methods = report["methods"].as_array().expect("a list");
    let names: Vec<&str> = methods.iter().filter_map(|method| method["method"].as_str()).collect();
    assert_eq!(names, ["ar", "vsd", "pard"]);
    for method in methods {
        assert_eq!((&method["identical"], &method["first_difference"]), (&json!(true), &Value::Null), "{method}");
        assert_eq!(method["output_tokens"], methods[0]["output_tokens"]);
        for field in ["speed_up", "tokens_per_second", "prefill_seconds", "decode_seconds", "tokens_per_round"] {
            assert!(method[field].as_f64().is_some_and(|value| value > 0.0), "{field} in {method}");
        }
    }
    assert_eq!(methods[2]["accepted_per_position"].as_array().map(Vec::len), Some(3));

    let table = pard(&[&arguments[..], &["--limit", "1", "--methods", "vsd,ar"]].concat());
    assert_eq!(table.code, Some(0), "{}", table.stderr);
    for part in ["1 prompt of", "speed-up", "accepted at", "ar ", "vsd ", "tokens of all methods are identical"] {
        assert!(table.stdout.contains(part), "no {part:?} in {}", table.stdout);
    }
    assert!(!table.stdout.contains("pard "), "{}", table.stdout);

    // No machine writes 20 answers of 400 tokens by three methods in a second.
    std::fs::write(&prompts, "{\"prompt\": \"the\"}\n".repeat(20)).expect("prompts");
    let short = pard(&[&arguments[..9], &["-n", "400", "--within", "1", "--json"]].concat());
    assert!(short.code == Some(0) && short.stderr.contains("which take about the time allowed"), "{}", short.stderr);
    let report: Value = serde_json::from_str(&short.stdout).expect("a report");
    let tokens = report["methods"][0]["output_tokens"].as_u64().expect("a count");
    assert!((20..20 * 400).contains(&tokens), "{tokens} tokens");

    std::fs::write(&prompts, "{\"prompt\": \"the\"}\n{\"question\": 1}\n").expect("prompts");
    pard(&arguments).expect_error(1, &["prompts.jsonl:2", "`turns`"]);
}

#[test]
fn raw_speed_is_measured_and_shown_as_llama_bench_does() {
    let target = name(&MODELS.target);
    let bench = ["bench", "-m", target, "-r", "3", "--pp", "1,600", "--tg", "5"];

    let table = pard(&bench);
    assert_eq!(table.code, Some(0), "{}", table.stderr);
    assert!(table.stderr.contains("made for contexts of 512 tokens"), "{}", table.stderr);
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert!(lines.len() == 7 && lines[5].is_empty() && lines[6].starts_with("pard "), "{}", table.stdout);
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
    assert_eq!(cells(lines[0])[1..7], ["model", "size", "params", "backend", "test", "t/s"]);
    assert!(
        cells(lines[1])[1..7].iter().all(|rule| rule.trim_end_matches(':').chars().all(|character| character == '-'))
    );
    for (line, test) in lines[2..5].iter().zip(["pp1", "pp600", "tg5"]) {
        let cells = cells(line);
        assert_eq!((cells.len(), cells[1].as_str(), cells[5].as_str()), (8, "target", test), "{}", table.stdout);
        assert_eq!(line.chars().count(), lines[0].chars().count(), "{}", table.stdout);
        let speed: Option<(&str, &str)> = cells[6].split_once(" ± ");
        assert!(speed.is_some_and(|(mean, deviation)| mean.parse::<f64>().is_ok() && deviation.parse::<f64>().is_ok()));
    }

    let tests = json_of(&[&bench[..], &["-o", "json"]].concat());
    let tests = tests.as_array().expect("a list");
    let model = json_of(&["inspect", target, "--json"]);
    for (test, (name, read, written)) in tests.iter().zip([("pp1", 1, 0), ("pp600", 600, 0), ("tg5", 0, 5)]) {
        assert_eq!((&test["test"], &test["n_prompt"], &test["n_gen"]), (&json!(name), &json!(read), &json!(written)));
        assert_eq!(test["model_n_params"], model["parameters"]);
        // On the device matrices may be padded.
        assert!(test["model_size"].as_u64() >= model["memory"]["weight_bytes"].as_u64(), "{test}");
        assert_eq!(test["context"], 601, "what the longest test needs");
        let numbers = |field: &str| -> Vec<f64> {
            test[field].as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
        };
        let (times, mut speeds) = (numbers("samples_ns"), numbers("samples_ts"));
        assert_eq!((times.len(), speeds.len()), (3, 3));
        let expected = times.iter().map(|time| f64::from(read + written) * 1e9 / time);
        assert!(expected.zip(&speeds).all(|(expected, speed)| (speed / expected - 1.0).abs() < 1e-6), "{test}");
        let mean = speeds.iter().sum::<f64>() / 3.0;
        let deviation = (speeds.iter().map(|speed| (speed - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
        assert!((test["avg_ts"].as_f64().expect("a number") / mean - 1.0).abs() < 1e-6, "{test}");
        assert!((test["stddev_ts"].as_f64().expect("a number") - deviation).abs() < 1e-6 * mean, "{test}");
        speeds.sort_by(f64::total_cmp);
        assert_eq!(test["median_ts"], speeds[1]);
    }
    assert_eq!(tests.len(), 3);
    // A longer context may be asked for.
    assert_eq!(json_of(&[&bench[..], &["--json", "-c", "700"]].concat())[0]["context"], 700);

    let csv = pard(&[&bench[..], &["-q", "-o", "csv"]].concat());
    assert_eq!((csv.code, csv.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = csv.stdout.lines().collect();
    let names: Vec<&str> = lines[0].split(',').collect();
    assert_eq!(lines.len(), 4);
    for line in &lines[1..] {
        assert_eq!(line.trim_matches('"').split("\",\"").count(), names.len(), "{}", csv.stdout);
    }
    assert!(names.contains(&"avg_ts") && !names.contains(&"samples_ts"), "{names:?}");
}

#[test]
fn tests_of_raw_speed_refuse_what_they_cannot_honour() {
    let target = name(&MODELS.target);
    let bench = |more: &[&str]| pard(&[&["bench", "-m", target], more].concat());
    let refused: [&[&str]; 12] = [
        &["--pp", "0"],
        &["--tg", "4,0"],
        &["--tg", "many"],
        &["--pp", "16777216"],
        &["--pp", "4", "-r", "0"],
        &["-r", "3"],
        &["--pp", "4", "-d", target],
        &["--tg", "4", "--methods", "ar"],
        &["--tg", "4", "-n", "4"],
        &["--tg", "4", "--raw"],
        &["--tg", "4", "--json", "-o", "csv"],
        &["--tg", "4", "-o", "yaml"],
    ];
    for arguments in refused {
        let ended = bench(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", ended.stderr);
    }
    bench(&["-o", "md"]).expect_error(2, &["--output", "--pp"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_tests_of_raw_speed_and_keeps_those_done() {
    let target = name(&MODELS.target);
    let mut child = spawned(&["bench", "-m", target, "--tg", "4,100000", "-r", "1", "-o", "csv"]);
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut text = String::new();
    let mut byte = [0];
    while text.matches('\n').count() < 2 {
        stdout.read_exact(&mut byte).expect("two lines");
        text.push(char::from(byte[0]));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the rest");
    let ended = Ended::of(child.wait_with_output().expect("its end"));
    assert_eq!((ended.code, rest.as_str()), (Some(130), ""), "{}", ended.stderr);
    assert!(text.contains("\"tg4\"") && ended.stderr.contains("after 1 of 2 tests"), "{text}{}", ended.stderr);
}
