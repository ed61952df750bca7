//! `pard report` on the adapter at hand: what the file holds, the page, comparisons, and a run that is killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{MODELS, name, pard, spawned};

/// An empty folder of the given name.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json_at(path: &Path) -> Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key} in {value}"))
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

#[test]
fn a_report_holds_what_there_was_time_for() {
    let out = folder("report");
    let models = ["-m", name(&MODELS.target), "-d", name(&MODELS.draft)];
    let ended = pard(&[&["report", "--time-limit", "25", "--out", name(&out)][..], &models].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let report = json_at(&out.join("report.json"));
    check(&report);
    check_page(&read(&out.join("report.html")), &report);
    let trace = json_at(&out.join("trace.json"));
    let has_kernels = list(&trace, "traceEvents").iter().any(|event| event["cat"] == "kernel");
    assert_eq!(has_kernels, report["kernels"].is_array(), "{trace}");
    let row = read(&out.join("row.md"));
    assert!(row.starts_with("### ") && row.contains("| SmolLM2-135M bf16 |"), "{row}");
    assert!(ended.stdout.contains("GB/s read") && ended.stdout.contains("SmolLM2-135M bf16"), "{}", ended.stdout);
    check_comparisons(&out.join("report.json"));

    // Whatever there was no time for has its plot and table, too.
    let full = out.join("full.json");
    std::fs::write(&full, completed(report).to_string()).expect("a file");
    let ended = pard(&["report", "--from", name(&full), "--out", name(&out)]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let page = read(&out.join("report.html"));
    check_sections(&page, &["passes", "kernels", "rounds", "acceptance", "contexts"]);
    for cell in ["<td>70 %</td>", "<td>12.5</td>", "<td>3.125</td>", "<td>320.0</td>"] {
        assert!(page.contains(cell), "no {cell} in {page}");
    }
}

/// `report` with rounds and contexts of made-up figures.
fn completed(mut report: Value) -> Value {
    let round = |method: &str, drafts: usize, accepted: &[f64], speed: f64| {
        json!({
            "method": method, "drafts": drafts, "target": "a", "draft": "b", "tokens_per_second": speed,
            "tokens_per_round": 1.7, "accepted_per_position": accepted, "host_share": 0.05,
            "round_seconds": { "seconds": 0.1, "least": 0.09, "most": 0.2, "runs": 3 },
        })
    };
    report["kernels"] = json!([{
        "shape": "SmolLM2-135M", "format": "bf16", "products": "plain", "rows": 1, "passes": 3, "wall_seconds": 0.02,
        "kernel_seconds": 0.01, "kernels": [{
            "kernel": "matmul_rows", "matrix": [576, 1536], "rows": 1, "bytes": 1_769_472, "flops": 1_769_472,
            "stored": true, "total_seconds": 0.006, "seconds": 0.001, "least": 0.001, "most": 0.004, "runs": 6,
        }],
    }]);
    report["rounds"] = json!([round("ar", 0, &[], 10.0), round("pard", 2, &[0.7, 0.4], 12.5)]);
    report["contexts"] = json!([1024, 32768].map(|context| json!({
        "shape": "SmolLM2-135M", "format": "bf16", "products": "plain", "layers": 2, "context": context,
        "seconds": 0.003125, "attention_seconds": 0.001,
    })));
    report
}

fn check(report: &Value) {
    assert_eq!((&report["pard_report"], &report["complete"]), (&json!(1), &json!(true)));
    let day = report["begun"].as_str().expect("a day");
    assert!(day.len() == 10 && day > "2025-01-01" && day < "2200-01-01", "{day}");
    for check in list(report, "checks") {
        assert!(list(check, "faults").is_empty() && number(check, "checks") >= 1.0, "{check}");
    }
    let read = number(&report["rates"], "read_bytes_per_second");
    assert!(read > 1e6 && number(&report["rates"], "multiply_flops_per_second") > 1e6);

    let pass = &list(report, "passes")[0];
    assert_eq!((&pass["shape"], &pass["format"]), (&json!("SmolLM2-135M"), &json!("bf16")));
    assert_eq!((list(pass, "differing").len(), list(pass, "compared")[0].clone()), (0, json!(1)));
    let times = list(pass, "times");
    assert!(!times.is_empty() && times.windows(2).all(|pair| number(&pair[0], "rows") < number(&pair[1], "rows")));
    for time in times {
        let [least, median, most] = ["least", "seconds", "most"].map(|key| number(time, key));
        assert!(0.0 < least && least <= median && median <= most, "{time}");
    }
    // Two bytes a weight and nothing read twice: layers of 2 (576 (576 + 2 * 192 + 576) + 3 * 576 * 1536) bytes.
    let layer = 2.0 * (576.0 * (2.0 * 576.0 + 2.0 * 192.0) + 3.0 * 576.0 * 1536.0);
    let expected = number(pass, "layers") * layer + 2.0 * 576.0 * number(pass, "vocabulary");
    let bytes = number(pass, "pass_bytes");
    assert!(bytes >= expected && bytes < 1.05 * expected, "{bytes} of {expected}");
    // The time was too short for all.
    assert!(list(report, "skipped").iter().any(|entry| entry["reason"] == "the time was up"), "{report}");
}

/// Checks that what was measured has a plot, that each plot has its table, and that the page needs nothing else.
fn check_page(page: &str, report: &Value) {
    for part in ["<script", "src=", "<link", "@import", "url("] {
        assert!(!page.contains(part), "{part} in the page");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
    let there = ["passes", "kernels", "rounds", "contexts"].into_iter().filter(|id| report[*id].is_array());
    check_sections(page, &there.collect::<Vec<_>>());
    assert!(section(page, "skipped").contains("the time was up"));
}

/// Checks that each section has a plot with its table beneath.
fn check_sections(page: &str, ids: &[&str]) {
    for id in ids {
        let section = section(page, id);
        assert!(section.contains("<svg") && section.contains("<table") && section.contains("<td>"), "{section}");
        assert!(section.find("<svg") < section.find("<table"), "the table is beneath the plot");
        assert!(!section.contains("NaN"), "{section}");
    }
}

fn section<'a>(page: &'a str, id: &str) -> &'a str {
    let from = page.split(&format!("<section id=\"{id}\">")).nth(1).unwrap_or_else(|| panic!("no section {id}"));
    from.split("</section>").next().unwrap_or_default()
}

fn check_comparisons(report: &Path) {
    let out = folder("report-compared");
    let compare = |file: &Path| pard(&["report", "--from", name(report), "--out", name(&out), "--compare", name(file)]);
    let same = compare(report);
    assert_eq!(same.code, Some(0), "{}", same.stderr);
    let page = read(&out.join("report.html"));
    assert!(page.contains("<section id=\"compared\">") && page.contains("SmolLM2-135M bf16, T(1) ms"), "{page}");
    assert!(page.contains("the other: SmolLM2-135M bf16") && page.contains("<td>1.00</td>"));

    let file = out.join("bench.json");
    let test = |prompt, written| {
        json!({
            "avg_ts": 123.4, "n_prompt": prompt, "n_gen": written, "model_type": "llama 8B Q4_K - Medium",
            "backends": "Vulkan", "gpu_info": "A card",
        })
    };
    std::fs::write(&file, json!([test(512, 0), test(0, 128)]).to_string()).expect("a file");
    let bench = compare(&file);
    assert_eq!(bench.code, Some(0), "{}", bench.stderr);
    for part in ["Beside llama.cpp Vulkan A card", "llama 8B Q4_K - Medium, tg128, tokens/s", "123.4"] {
        assert!(bench.stdout.contains(part), "no {part:?} in {}", bench.stdout);
    }
    for (text, part) in
        [("[]", "llama-bench -o json"), ("{}", "pard_report"), ("[{\"avg_ts\": 1}]", "n_prompt"), ("?", "JSON")]
    {
        std::fs::write(&file, text).expect("a file");
        compare(&file).expect_error(1, &["bench.json", part]);
    }
    pard(&["report", "--from", name(&file), "--out", name(&out)]).expect_error(1, &["bench.json"]);
}

#[test]
fn a_killed_report_leaves_what_it_had() {
    let out = folder("report-killed");
    let mut child = spawned(&["report", "--time-limit", "300", "--out", name(&out), "-m", name(&MODELS.target)]);
    let file = out.join("report.json");
    let begin = Instant::now();
    while !file.exists() || json_at(&file)["adapter"].is_null() {
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing is written");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("killing it");
    child.wait().expect("its end");
    let report = json_at(&file);
    assert_eq!((&report["pard_report"], &report["complete"]), (&json!(1), &json!(false)));
    let ended = pard(&["report", "--from", name(&file), "--out", name(&out), "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let printed: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!((&printed["adapter"], &printed["complete"]), (&report["adapter"], &json!(false)));
    assert!(read(&out.join("report.html")).contains("broken off"));
}
