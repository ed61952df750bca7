//! A report's tables, for terminals, pages and benches/RESULTS.md.

use serde_json::Value;

use super::compare::{Other, What};
use crate::output;

/// A table with what it is of.
pub struct Table {
    pub title: String,
    /// Headings first.
    pub rows: Vec<Vec<String>>,
}

/// Row counts in the tables of passes.
const ROWS: [u64; 6] = [1, 2, 4, 8, 13, 32];

/// The entries of the list `key`.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

pub fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(f64::NAN)
}

pub fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Label of a figure: shape, format, and the products unless they are plain.
pub fn label(entry: &Value) -> String {
    let products = match text_of(entry, "products") {
        "plain" => String::new(),
        other => format!(", {other}"),
    };
    format!("{} {}{products}", text_of(entry, "shape"), text_of(entry, "format"))
}

/// Milliseconds of a pass of `rows` rows.
pub fn pass_seconds(entry: &Value, rows: u64) -> Option<f64> {
    list(entry, "times").iter().find(|time| time["rows"] == rows)?["seconds"].as_f64()
}

/// Seconds that reading the weights once takes at the measured rate.
pub fn bound(document: &Value, entry: &Value) -> f64 {
    number(entry, "pass_bytes") / number(&document["rates"], "read_bytes_per_second")
}

fn ms(seconds: Option<f64>) -> String {
    seconds.filter(|seconds| seconds.is_finite()).map_or("-".to_owned(), |seconds| format!("{:.3}", seconds * 1e3))
}

fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.0} %", share * 100.0) } else { "-".to_owned() }
}

fn ratio(one: Option<f64>, other: Option<f64>) -> String {
    one.zip(other).map_or("-".to_owned(), |(one, other)| format!("{:.2}", one / other))
}

fn head(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// Passes by their rows, beside the time that reading the weights takes.
pub fn passes(document: &Value) -> Table {
    let mut rows = vec![head(&["pass", "layers", "bound ms"])];
    rows[0].extend(ROWS.map(|count| format!("T({count}) ms")));
    rows[0].extend(head(&["T(8)/T(1)", "T(13)/T(1)", "of read", "bits alike"]));
    for entry in list(document, "passes") {
        let bound = bound(document, entry);
        let one = pass_seconds(entry, 1);
        let mut row = vec![label(entry), entry["layers"].to_string(), ms(Some(bound))];
        row.extend(ROWS.map(|count| ms(pass_seconds(entry, count))));
        row.extend([8, 13].map(|count| ratio(pass_seconds(entry, count), one)));
        row.push(percent(bound / one.unwrap_or(f64::NAN)));
        row.push(match list(entry, "differing") {
            [] => "yes".to_owned(),
            differing => format!("not at {}", Value::from(differing.to_vec())),
        });
        rows.push(row);
    }
    Table {
        title: "Whole passes by rows; the bound is one reading of the weights at the measured rate".to_owned(),
        rows,
    }
}

/// The kernels that take longest.
pub fn kernels(document: &Value) -> Table {
    const MOST: usize = 6;
    let [read, multiply] =
        ["read_bytes_per_second", "multiply_flops_per_second"].map(|rate| number(&document["rates"], rate));
    let mut rows = vec![head(&[
        "kernel",
        "pass",
        "matrix",
        "rows",
        "median µs",
        "spread µs",
        "GB/s",
        "of read",
        "GFLOP/s",
        "of mult.",
    ])];
    for entry in list(document, "kernels") {
        for kernel in list(entry, "kernels").iter().filter(|kernel| kernel["stored"] == true).take(MOST) {
            let seconds = number(kernel, "seconds").max(1e-9);
            let [bytes, flops] = ["bytes", "flops"].map(|amount| number(kernel, amount) / seconds);
            let micro = |key: &str| number(kernel, key) * 1e6;
            rows.push(vec![
                text_of(kernel, "kernel").to_owned(),
                label(entry),
                format!("{} x {}", kernel["matrix"][0], kernel["matrix"][1]),
                kernel["rows"].to_string(),
                format!("{:.1}", micro("seconds")),
                format!("{:.1} to {:.1}", micro("least"), micro("most")),
                format!("{:.1}", bytes / 1e9),
                percent(bytes / read),
                format!("{:.1}", flops / 1e9),
                percent(flops / multiply),
            ]);
        }
    }
    Table {
        title: "The kernels that read weights or caches and take longest, by the device's own clock".to_owned(),
        rows,
    }
}

/// Rounds by method and K.
pub fn rounds(document: &Value) -> Table {
    let mut rows =
        vec![head(&["method", "K", "tokens/s", "tokens/round", "round ms", "least", "most", "host's share"])];
    for entry in list(document, "rounds") {
        let time = |key: &str| ms(entry["round_seconds"][key].as_f64());
        rows.push(vec![
            text_of(entry, "method").to_owned(),
            entry["drafts"].to_string(),
            format!("{:.1}", number(entry, "tokens_per_second")),
            format!("{:.2}", number(entry, "tokens_per_round")),
            time("seconds"),
            time("least"),
            time("most"),
            percent(number(entry, "host_share")),
        ]);
    }
    let models = list(document, "rounds").first().map(|entry| match entry["draft"].as_str() {
        Some(draft) => format!(" of {} with {draft}", text_of(entry, "target")),
        None => format!(" of {}", text_of(entry, "target")),
    });
    Table { title: format!("Rounds{}", models.unwrap_or_default()), rows }
}

/// The share of proposals accepted at each position.
pub fn acceptance(document: &Value) -> Table {
    let speculative =
        || list(document, "rounds").iter().filter(|entry| !list(entry, "accepted_per_position").is_empty());
    let most = speculative().map(|entry| list(entry, "accepted_per_position").len()).max().unwrap_or(0);
    let mut rows = vec![head(&["method", "K"])];
    rows[0].extend((1..=most).map(|position| position.to_string()));
    for entry in speculative() {
        let shares =
            list(entry, "accepted_per_position").iter().map(|share| percent(share.as_f64().unwrap_or(f64::NAN)));
        let first = [text_of(entry, "method").to_owned(), entry["drafts"].to_string()];
        rows.push(first.into_iter().chain(shares).collect());
    }
    Table { title: "Proposals accepted, by position".to_owned(), rows }
}

/// A row behind long contexts.
pub fn contexts(document: &Value) -> Table {
    let mut rows = vec![head(&["pass", "layers", "context", "ms", "tokens/s", "attention ms"])];
    for entry in list(document, "contexts") {
        rows.push(vec![
            label(entry),
            entry["layers"].to_string(),
            entry["context"].to_string(),
            ms(entry["seconds"].as_f64()),
            format!("{:.1}", 1.0 / number(entry, "seconds")),
            ms(entry["attention_seconds"].as_f64()),
        ]);
    }
    Table { title: "One row at the end of a context".to_owned(), rows }
}

/// Prompts.
pub fn prompts(document: &Value) -> Table {
    let multiply = number(&document["rates"], "multiply_flops_per_second");
    let mut rows = vec![head(&["prompt", "layers", "tokens", "ms", "tokens/s", "GFLOP/s", "of mult."])];
    for entry in list(document, "prompts") {
        let seconds = number(entry, "seconds");
        let flops = number(entry, "flops") / seconds;
        rows.push(vec![
            label(entry),
            entry["layers"].to_string(),
            entry["tokens"].to_string(),
            ms(Some(seconds)),
            format!("{:.0}", number(entry, "tokens") / seconds),
            format!("{:.1}", flops / 1e9),
            percent(flops / multiply),
        ]);
    }
    Table { title: "Prompts; attention's operations are not counted".to_owned(), rows }
}

/// Training steps.
pub fn training(document: &Value) -> Table {
    let mut rows = vec![head(&["training", "layers", "tokens", "rows", "step ms", "least", "most", "tokens/s"])];
    for entry in list(document, "training") {
        let [step, least, most] = ["seconds", "least", "most"].map(|key| ms(entry[key].as_f64()));
        let counts = ["layers", "tokens", "rows"].map(|key| entry[key].to_string());
        let speed = format!("{:.0}", number(entry, "tokens") / number(entry, "seconds"));
        rows.push([vec![label(entry)], counts.to_vec(), vec![step, least, most, speed]].concat());
    }
    Table { title: "Training steps, embeddings frozen".to_owned(), rows }
}

/// Table of the measurements that were left out.
pub fn skipped(document: &Value) -> Table {
    let mut rows = vec![head(&["left out", "why"])];
    let cells = |entry: &Value| vec![text_of(entry, "item").to_owned(), text_of(entry, "reason").to_owned()];
    rows.extend(list(document, "skipped").iter().map(cells));
    Table { title: "Left out".to_owned(), rows }
}

/// The figures that both have.
pub fn compared(document: &Value, other: &Other) -> Table {
    let mut rows = vec![head(&["figure", "this report", "the other", "this / other"])];
    let mut add = |figure: String, this: f64, that: f64, digits: usize| {
        let cell = |value: f64| format!("{value:.digits$}");
        rows.push(vec![figure, cell(this), cell(that), format!("{:.2}", this / that)]);
    };
    match &other.what {
        What::Report(report) => {
            let same = |one: &Value, two: &Value, keys: &[&str]| keys.iter().all(|key| one[*key] == two[*key]);
            for entry in list(document, "passes") {
                let keys = ["shape", "format", "products", "layers", "vocabulary"];
                for theirs in list(report, "passes").iter().filter(|theirs| same(entry, theirs, &keys)) {
                    for count in ROWS {
                        if let (Some(this), Some(that)) = (pass_seconds(entry, count), pass_seconds(theirs, count)) {
                            add(format!("{}, T({count}) ms", label(entry)), this * 1e3, that * 1e3, 3);
                        }
                    }
                }
            }
            for entry in list(document, "rounds") {
                let keys = ["method", "drafts", "target", "draft"];
                for theirs in list(report, "rounds").iter().filter(|theirs| same(entry, theirs, &keys)) {
                    let figure = format!("{}, K = {}, tokens/s", text_of(entry, "method"), entry["drafts"]);
                    add(figure, number(entry, "tokens_per_second"), number(theirs, "tokens_per_second"), 1);
                }
            }
            let rate = |value: &Value| number(&value["rates"], "read_bytes_per_second") / 1e9;
            if rate(document).is_finite() && rate(report).is_finite() {
                add("read, GB/s".to_owned(), rate(document), rate(report), 1);
            }
        }
        What::LlamaBench(tests) => {
            for test in tests {
                let (prompt, written) = (number(test, "n_prompt"), number(test, "n_gen"));
                let that = number(test, "avg_ts");
                let model = text_of(test, "model_type");
                let is_same = |entry: &&Value| is_model(model, entry) && entry["products"] == "plain";
                let (name, this) = if written > 0.0 {
                    let pass = list(document, "passes").iter().find(is_same).and_then(|entry| pass_seconds(entry, 1));
                    (format!("tg{written}"), pass.map(|seconds| 1.0 / seconds))
                } else {
                    let mut prompts = list(document, "prompts").iter().filter(is_same);
                    let found = prompts.find(|entry| number(entry, "tokens") == prompt);
                    (format!("pp{prompt}"), found.map(|entry| prompt / number(entry, "seconds")))
                };
                add(format!("{model}, {name}, tokens/s"), this.unwrap_or(f64::NAN), that, 1);
            }
        }
    }
    for cell in rows.iter_mut().flatten().filter(|cell| *cell == "NaN") {
        *cell = "-".to_owned();
    }
    Table { title: format!("Beside {}", other.name), rows }
}

/// Returns `true` if llama.cpp's name of a model ("llama 8B Q4_K - Medium") means the model of `entry`.
fn is_model(model: &str, entry: &Value) -> bool {
    let model = model.to_lowercase();
    let shape = text_of(entry, "shape").to_lowercase();
    let (family, size) = shape.split_once('-').unwrap_or((&shape, ""));
    let size = size.rsplit('-').next().unwrap_or_default();
    model.contains(family)
        && model.split([' ', '-']).any(|word| word == size)
        && model.contains(text_of(entry, "format"))
}

/// All tables that have rows, for a terminal.
pub fn text(document: &Value, other: Option<&Other>) -> String {
    let rate = |key: &str, unit: f64| number(&document["rates"], key) / unit;
    let mut text = format!("{}, {}\n", text_of(document, "device"), text_of(document, "begun"));
    if !document["rates"].is_null() {
        let (read, multiply) = (rate("read_bytes_per_second", 1e9), rate("multiply_flops_per_second", 1e9));
        text += &format!("measured here: {read:.1} GB/s read, {multiply:.0} GFLOP/s multiplied\n");
    }
    for check in list(document, "checks") {
        let faults = list(check, "faults");
        let verdict = if faults.is_empty() { "all right".to_owned() } else { Value::from(faults.to_vec()).to_string() };
        text += &format!("self-check, {}: {} checks, {verdict}\n", text_of(check, "products"), check["checks"]);
    }
    let tables =
        [passes, kernels, rounds, acceptance, contexts, prompts, training, skipped].map(|table| table(document));
    for table in tables.into_iter().chain(other.map(|other| compared(document, other))) {
        if table.rows.len() > 1 {
            text += &format!("\n{}\n\n{}\n", table.title, output::table(&table.rows));
        }
    }
    text.trim_end().to_owned()
}

/// The card's entry in benches/RESULTS.md, under "GPUs".
pub fn markdown_row(document: &Value) -> String {
    let rates = &document["rates"];
    let mut text = format!(
        "### {}, {}\n\n`pard {}`, {:.0} s{}; {:.1} GB/s read, {:.0} GFLOP/s multiplied\n\n",
        text_of(document, "device"),
        text_of(document, "begun"),
        text_of(document, "command"),
        number(document, "seconds"),
        if document["complete"] == true { "" } else { ", broken off" },
        number(rates, "read_bytes_per_second") / 1e9,
        number(rates, "multiply_flops_per_second") / 1e9,
    );
    for table in [passes, rounds, contexts, prompts, training].map(|table| table(document)) {
        if table.rows.len() > 1 {
            text += &format!("{}\n\n{}\n", table.title, markdown(&table.rows));
        }
    }
    text
}

fn markdown(rows: &[Vec<String>]) -> String {
    let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
    let rule: Vec<&str> = (0..rows[0].len()).map(|column| if column == 0 { "---" } else { "--:" }).collect();
    rows.iter().enumerate().fold(String::new(), |text, (index, row)| match index {
        0 => format!("{text}{}| {} |\n", line(row), rule.join(" | ")),
        _ => text + &line(row),
    })
}
