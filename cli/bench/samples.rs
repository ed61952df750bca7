//! Report of the tests of raw speed: llama-bench's table, and its fields as CSV and JSON, which scripts know.

use std::path::PathBuf;
use std::time::Duration;

use pard::model::Model;
use serde_json::{Map, Value, json};

/// A test of raw speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// Reading this many tokens.
    Prompt(usize),
    /// Writing this many tokens.
    Generation(usize),
}

impl Test {
    /// Tokens read or written.
    pub fn tokens(self) -> usize {
        match self {
            Test::Prompt(tokens) | Test::Generation(tokens) => tokens,
        }
    }

    /// Its name in reports.
    pub fn name(self) -> String {
        match self {
            Test::Prompt(tokens) => format!("pp{tokens}"),
            Test::Generation(tokens) => format!("tg{tokens}"),
        }
    }
}

/// The times of one test.
pub struct Samples {
    test: Test,
    times: Vec<Duration>,
}

impl Samples {
    pub fn new(test: Test, times: Vec<Duration>) -> Samples {
        Samples { test, times }
    }

    fn nanoseconds(&self) -> Vec<f64> {
        self.times.iter().map(|time| time.as_nanos() as f64).collect()
    }

    fn tokens_per_second(&self) -> Vec<f64> {
        self.times.iter().map(|time| self.test.tokens() as f64 / time.as_secs_f64().max(1e-9)).collect()
    }
}

/// The model under test.
pub struct Subject<'a> {
    pub model: &'a Model,
    pub path: PathBuf,
    /// Weights.
    pub parameters: u64,
    pub context: usize,
}

/// The table's columns: name, width at least, and whether its cells stand to the right.
const COLUMNS: [(&str, usize, bool); 6] = [
    ("model", 20, false),
    ("size", 10, true),
    ("params", 10, true),
    ("backend", 10, false),
    ("test", 10, true),
    ("t/s", 20, true),
];

impl Subject<'_> {
    /// The table's first two lines.
    pub fn markdown_heading(&self) -> String {
        let rule = |(width, (_, _, right)): (usize, (&str, usize, bool))| match right {
            true => format!("{}:", "-".repeat(width - 1)),
            false => "-".repeat(width),
        };
        let rules: Vec<String> = self.widths().into_iter().zip(COLUMNS).map(rule).collect();
        format!("{}\n| {} |", self.line(&COLUMNS.map(|(name, ..)| name.to_owned())), rules.join(" | "))
    }

    /// The table's line for one test.
    pub fn markdown_row(&self, samples: &Samples) -> String {
        let (mean, deviation) = mean_and_deviation(&samples.tokens_per_second());
        let [model, size, params, backend] = self.cells();
        self.line(&[model, size, params, backend, samples.test.name(), format!("{mean:.2} ± {deviation:.2}")])
    }

    /// The line below the table.
    pub fn markdown_ending(&self) -> String {
        let transformer = &self.model.weights;
        format!("\npard {}; {}; {}", env!("CARGO_PKG_VERSION"), transformer.device().name(), transformer.plan())
    }

    /// The names of the CSV columns.
    pub fn csv_heading(&self) -> String {
        let fields = self.fields(&Samples::new(Test::Prompt(0), Vec::new()));
        fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",")
    }

    /// One test as a line of CSV.
    pub fn csv_row(&self, samples: &Samples) -> String {
        let quoted = |(_, value): &(&str, Value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("\"{}\"", text.replace('"', "\"\""))
        };
        self.fields(samples).iter().map(quoted).collect::<Vec<_>>().join(",")
    }

    /// All tests as a JSON array.
    pub fn as_json(&self, tests: &[Samples]) -> Value {
        let object = |samples: &Samples| {
            let times: Vec<u64> = samples.nanoseconds().into_iter().map(|time| time as u64).collect();
            let lists = [("samples_ns", json!(times)), ("samples_ts", json!(samples.tokens_per_second()))];
            let fields = self.fields(samples).into_iter().chain(lists);
            Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
        };
        tests.iter().map(object).collect()
    }

    /// llama-bench's names where it has one; the medians, the kernels and the context are ours.
    fn fields(&self, samples: &Samples) -> Vec<(&'static str, Value)> {
        let transformer = &self.model.weights;
        let (times, speeds) = (samples.nanoseconds(), samples.tokens_per_second());
        let (mean_time, time_deviation) = mean_and_deviation(&times);
        let (mean_speed, speed_deviation) = mean_and_deviation(&speeds);
        let (read, written) = match samples.test {
            Test::Prompt(tokens) => (tokens, 0),
            Test::Generation(tokens) => (0, tokens),
        };
        vec![
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("backends", transformer.device().backend().into()),
            ("gpu_info", transformer.device().name().into()),
            ("kernels", transformer.plan().to_string().into()),
            ("model_filename", self.path.display().to_string().into()),
            ("model_type", self.model.name().into()),
            ("model_size", transformer.bytes().into()),
            ("model_n_params", self.parameters.into()),
            ("type_k", transformer.plan().cache.name().into()),
            ("type_v", transformer.plan().cache.name().into()),
            ("context", self.context.into()),
            ("test", samples.test.name().into()),
            ("n_prompt", read.into()),
            ("n_gen", written.into()),
            ("avg_ns", (mean_time as u64).into()),
            ("stddev_ns", (time_deviation as u64).into()),
            ("median_ns", (median(&times) as u64).into()),
            ("avg_ts", mean_speed.into()),
            ("stddev_ts", speed_deviation.into()),
            ("median_ts", median(&speeds).into()),
        ]
    }

    /// The cells that all tests share.
    fn cells(&self) -> [String; 4] {
        let transformer = &self.model.weights;
        let name = self.model.name().replace('|', "\\|");
        [name, size(transformer.bytes()), count(self.parameters), transformer.device().backend().to_owned()]
    }

    fn widths(&self) -> Vec<usize> {
        let widest = |((_, least, _), cell): ((&str, usize, bool), Option<String>)| {
            least.max(cell.map_or(0, |cell| cell.chars().count()))
        };
        let cells = self.cells().into_iter().map(Some).chain(std::iter::repeat(None));
        COLUMNS.into_iter().zip(cells).map(widest).collect()
    }

    fn line(&self, cells: &[String; 6]) -> String {
        let padded = cells.iter().zip(COLUMNS).zip(self.widths()).map(|((cell, (_, _, right)), width)| match right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        format!("| {} |", padded.collect::<Vec<_>>().join(" | "))
    }
}

/// Bytes as llama-bench writes them.
fn size(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 1024.0 { format!("{mebibytes:.2} MiB") } else { format!("{:.2} GiB", mebibytes / 1024.0) }
}

/// Weights as llama-bench writes them.
fn count(weights: u64) -> String {
    let millions = weights as f64 / 1e6;
    if millions < 1000.0 { format!("{millions:.2} M") } else { format!("{:.2} B", millions / 1000.0) }
}

/// The mean, and the standard deviation of a sample (n - 1), which is 0 for a single value.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

/// The middle value; of an even number, the mean of the two.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    (middle(sorted.len().saturating_sub(1) / 2) + middle(sorted.len() / 2)) / 2.0
}
