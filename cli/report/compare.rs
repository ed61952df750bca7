//! Comparison of a report with another report, or with the output of llama-bench.

use std::path::Path;

use anyhow::bail;
use serde_json::Value;

use super::record::VERSION;

/// Something measured elsewhere.
pub struct Other {
    /// Its name in the report.
    pub name: String,
    pub what: What,
}

pub enum What {
    Report(Value),
    /// The tests of `llama-bench -o json`.
    LlamaBench(Vec<Value>),
}

/// Fields that every test of llama-bench has.
const FIELDS: [&str; 4] = ["avg_ts", "n_prompt", "n_gen", "model_type"];

impl Other {
    /// Reads the file, whichever of the two it is.
    pub fn open(path: &Path) -> anyhow::Result<Other> {
        let value = read(path)?;
        if value.get(VERSION).is_some() {
            let name = value["device"].as_str().unwrap_or("the other").to_owned();
            return Ok(Other { name, what: What::Report(value) });
        }
        let tests = value.as_array().filter(|tests| !tests.is_empty());
        let is_test = |test: &Value| FIELDS.iter().all(|field| test.get(field).is_some());
        let Some(tests) = tests.filter(|tests| tests.iter().all(is_test)) else {
            bail!(
                "{} is neither the report.json of `pard report` (an object with `{VERSION}`) nor the output of \
                 `llama-bench -o json` (a list of objects with {})",
                path.display(),
                FIELDS.map(|field| format!("`{field}`")).join(", ")
            );
        };
        let gpu = tests[0].get("gpu_info").and_then(Value::as_str).unwrap_or_default();
        let backends = tests[0].get("backends").and_then(Value::as_str).unwrap_or_default();
        let name = format!("llama.cpp {backends} {gpu}").trim().to_owned();
        Ok(Other { name, what: What::LlamaBench(tests.clone()) })
    }

    /// The other report, if it is one.
    pub fn report(&self) -> Option<&Value> {
        match &self.what {
            What::Report(report) => Some(report),
            What::LlamaBench(_) => None,
        }
    }
}

/// Reads a report.
pub fn open_report(path: &Path) -> anyhow::Result<Value> {
    let value = read(path)?;
    if value.get(VERSION).is_none() {
        bail!("{} is not the report.json of `pard report`: it is no object with `{VERSION}`", path.display());
    }
    Ok(value)
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let text =
        std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| {
        anyhow::anyhow!(
            "{} is not JSON ({error}); expected is the report.json of `pard report` or the output of `llama-bench -o json`",
            path.display()
        )
    })
}
