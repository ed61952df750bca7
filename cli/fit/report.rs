//! The report of `pard fit`, as text and as JSON.

use pard::low_level::ops::WeightFormat;
use pard::model::{MemoryEstimate, WeightDtype};
use serde_json::{Value, json};

use super::{Fit, Memory, Promise, Speed, Way};
use crate::output;

pub fn as_text(fit: &Fit) -> String {
    let Fit { target, draft, adapter, plan, .. } = fit;
    let models = match draft {
        None => target.clone(),
        Some(draft) => format!("{target}, drafted for by {draft}"),
    };
    let mut parts = vec![
        format!("{models}: {}, {}\n{adapter}; {plan}", way_name(fit.options.dtype), shares(&fit.formats)),
        needs(fit),
        verdict(fit),
        ways(fit),
    ];
    parts.extend(fit.speed.as_ref().map(speeds));
    parts.join("\n\n")
}

/// Table of the memory needed: weights, caches and scratch of each model.
fn needs(fit: &Fit) -> String {
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(["weights", "caches", "scratch", "in all"].map(str::to_owned));
    let row = |name: &str, need: &MemoryEstimate| {
        let sizes = [need.weights, need.caches, need.scratch, need.total()].map(output::bytes);
        std::iter::once(name.to_owned()).chain(sizes).collect::<Vec<_>>()
    };
    rows.push(row("target", &fit.need));
    if let Some(draft) = &fit.draft_need {
        rows.push(row("draft", draft));
        rows.extend(fit.elsewhere.is_none().then(|| row("both", &fit.needed())));
    }
    format!(
        "{}\n\ncaches in {} for a context of {} tokens (-c)",
        output::table(&rows),
        fit.plan.cache.name(),
        fit.context
    )
}

/// Verdict on whether the models fit, with the memory needed and available.
fn verdict(fit: &Fit) -> String {
    let mut verdict = one_verdict(&fit.needed(), fit.memory, fit.fits, fit.obstacle.as_deref());
    if let (Some((adapter, memory)), Some(need)) = (&fit.elsewhere, &fit.draft_need) {
        let of_draft = one_verdict(need, *memory, fit.draft_fits(), None);
        verdict = format!("target {verdict}\ndraft {of_draft}: {adapter}");
    }
    verdict
}

fn one_verdict(need: &MemoryEstimate, memory: Memory, fits: Option<bool>, obstacle: Option<&str>) -> String {
    let needed = output::bytes(need.total());
    let Memory { report, limit } = memory;
    let size = |bytes: Option<u64>, what: &str| bytes.map(|bytes| format!("{} {what}", output::bytes(bytes)));
    let known: Vec<String> =
        [size(report.total, "of memory"), size(report.free, "free")].into_iter().flatten().collect();
    let there_is = match (limit, known.is_empty()) {
        (Some(limit), _) => format!("--memory allows {}", output::bytes(limit)),
        (None, false) => format!("the adapter has {}", known.join(", ")),
        (None, true) => "how much memory the adapter has is not known; --memory GIB says it".to_owned(),
    };
    match (fits, obstacle) {
        (_, Some(obstacle)) => format!("does not fit: {obstacle}"),
        (Some(true), _) => format!("fits: {needed} are needed, {there_is}"),
        (Some(false), _) => format!("does not fit: {needed} are needed, {there_is}"),
        (None, _) => format!("{needed} are needed; {there_is}"),
    }
}

/// The ways to keep the weights.
fn ways(fit: &Fit) -> String {
    let heading = ["weights", "on the device", "in all", "fits", "longest context"].map(str::to_owned);
    let fits = |way: &Way| match way.fits {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    let row = |way: &Way| {
        vec![
            way_name(way.weights),
            output::bytes(way.need.weights),
            output::bytes(way.need.total()),
            fits(way).to_owned(),
            way.longest.map_or("none".to_owned(), |tokens| tokens.to_string()),
        ]
    };
    output::table(&std::iter::once(heading.to_vec()).chain(fit.ways.iter().map(row)).collect::<Vec<_>>())
}

/// The tokens per second that are foretold.
fn speeds(speed: &Speed) -> String {
    let source = if speed.tuned { "by the table of `pard tune`" } else { "by passes over some layers" };
    let mut lines = vec![format!(
        "foretold {source}: {:.1} tokens/s one by one, {:.1} at the end of the context",
        speed.plain, speed.at_end
    )];
    if let Some(read) = speed.read {
        lines.push(format!(
            "a token takes {} of weights; memory is read at {:.1} GB/s, which allows {:.1} tokens/s",
            output::bytes(speed.pass_bytes),
            read / 1e9,
            read / speed.pass_bytes.max(1) as f64
        ));
    }
    if let Some((method, promises)) = &speed.speculative {
        let mut rows = vec![vec![format!("{}, accepted", method.name()), "K".to_owned(), "tokens/s".to_owned()]];
        let row = |promise: &Promise| {
            let Promise { accepted, drafts, tokens_per_second } = promise;
            vec![format!("{:.0} %", accepted * 100.0), drafts.to_string(), format!("{tokens_per_second:.1}")]
        };
        rows.extend(promises.iter().map(row));
        lines.extend([String::new(), output::table(&rows)]);
    }
    lines.join("\n")
}

/// The options that ask for it.
fn way_name(weights: WeightDtype) -> String {
    match weights {
        WeightDtype::Compact => "as stored".to_owned(),
        WeightDtype::Bf16 => "--weights bf16".to_owned(),
        WeightDtype::F32 => "--weights f32".to_owned(),
        WeightDtype::Quantised { layers, ends: WeightFormat::Q8_0 } => format!("--quantize {}", layers.name()),
        WeightDtype::Quantised { layers, ends } => {
            format!("--quantize {} --quantize-ends {}", layers.name(), ends.name())
        }
    }
}

/// `q4_1 79 %, q8_0 21 %`: of the weights.
fn shares(formats: &[(WeightFormat, u64)]) -> String {
    let sum: u64 = formats.iter().map(|(_, weights)| weights).sum();
    let share = |(format, weights): &(WeightFormat, u64)| {
        format!("{} {:.0} %", format.name(), 100.0 * *weights as f64 / sum.max(1) as f64)
    };
    formats.iter().map(share).collect::<Vec<_>>().join(", ")
}

pub fn as_json(fit: &Fit) -> Value {
    let need = |need: &MemoryEstimate| {
        let MemoryEstimate { weights, caches, scratch } = need;
        json!({ "weights": weights, "caches": caches, "scratch": scratch, "total": need.total() })
    };
    let way = |way: &Way| {
        json!({
            "weights": way_name(way.weights),
            "weight_bytes": way.need.weights,
            "total_bytes": way.need.total(),
            "fits": way.fits,
            "longest_context": way.longest,
        })
    };
    let Memory { report, limit } = fit.memory;
    json!({
        "model": fit.target,
        "draft": fit.draft,
        "adapter": fit.adapter,
        "kernels": fit.plan.to_string(),
        "context": fit.context,
        "weights": way_name(fit.options.dtype),
        "formats": fit.formats.iter().map(|(format, weights)| json!({ "format": format.name(), "parameters": weights })).collect::<Vec<_>>(),
        "cache": fit.plan.cache.name(),
        "target_bytes": need(&fit.need),
        "draft_bytes": fit.draft_need.as_ref().map(need),
        "needed_bytes": fit.needed().total(),
        "memory": { "total": report.total, "free": report.free, "limit": limit },
        "draft_adapter": fit.elsewhere.as_ref().map(|(adapter, _)| adapter),
        "draft_memory": fit.elsewhere.as_ref().map(|(_, Memory { report, .. })| {
            json!({ "total": report.total, "free": report.free })
        }),
        "fits": fit.verdict(),
        "obstacle": fit.obstacle,
        "ways": fit.ways.iter().map(way).collect::<Vec<_>>(),
        "speed": fit.speed.as_ref().map(speed),
    })
}

fn speed(speed: &Speed) -> Value {
    let promise = |promise: &Promise| {
        let Promise { accepted, drafts, tokens_per_second } = promise;
        json!({ "accepted": accepted, "k": drafts, "tokens_per_second": tokens_per_second })
    };
    json!({
        "tokens_per_second": speed.plain,
        "tokens_per_second_at_end": speed.at_end,
        "tuned": speed.tuned,
        "weight_bytes_per_token": speed.pass_bytes,
        "read_bytes_per_second": speed.read,
        "method": speed.speculative.as_ref().map(|(method, _)| method.name()),
        "speculative": speed.speculative.as_ref().map(|(_, promises)| promises.iter().map(promise).collect::<Vec<_>>()),
    })
}
