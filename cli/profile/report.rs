//! A profile as tables: what each kernel took, and what it made of the device.

use std::collections::HashMap;

use pard::decoding::{Method, SequenceOptions};
use pard::low_level::gpu::{DispatchTime, Profile, Work};
use pard::low_level::ops::{COLD_BYTES, PeakRates};
use serde_json::{Value, json};

use crate::load::Models;
use crate::output;

/// The profiles of one decoder, each with the seconds that passed on the host's clock.
pub struct Measured {
    pub options: SequenceOptions,
    pub rounds: usize,
    pub prompt_tokens: usize,
    pub prefill: (Profile, f64),
    pub decode: (Profile, f64),
}

/// All that was measured.
pub struct Report<'a> {
    pub models: &'a Models,
    pub context: usize,
    pub rates: PeakRates,
    pub measured: &'a [Measured],
}

/// A prompt or rounds: where their time went, in seconds per prompt or per round.
struct Phase {
    name: String,
    wall: f64,
    kernels: f64,
    gaps: f64,
    host: Vec<(&'static str, f64)>,
    dispatches: f64,
    separate_passes: bool,
    parts: Vec<Part>,
}

/// A part of a phase: the prompt, the draft's passes, the target's, the end of the round.
struct Part {
    name: &'static str,
    seconds: f64,
    /// Per pass of a model, and of these each layer's, where it runs one.
    dispatches: Option<[f64; 2]>,
    lines: Vec<Line>,
}

/// A kernel on one shape.
struct Line {
    kernel: &'static str,
    work: Work,
    /// Per prompt or round.
    calls: f64,
    median: f64,
    /// Per prompt or round.
    total: f64,
    /// Share of the part's time.
    share: f64,
    /// Set if a cache may hold what it reads.
    cached: bool,
}

impl Phase {
    fn new(name: String, runs: usize, (profile, wall): &(Profile, f64)) -> Phase {
        let runs = runs as f64;
        let (mut kernels, mut gaps) = (0.0, 0.0);
        // A gap belongs to the kernel that follows it.
        let mut gap_before = HashMap::new();
        for submit in &profile.submits {
            for pair in submit.windows(2) {
                let gap = (pair[1].begin - pair[0].end).max(0.0);
                gaps += gap;
                *gap_before.entry(pair[1].section).or_insert(0.0) += gap;
            }
            kernels += submit.iter().map(|dispatch| dispatch.end - dispatch.begin).sum::<f64>();
        }
        let dispatches: Vec<&DispatchTime> = profile.submits.iter().flatten().collect();
        let mut names: Vec<&'static str> = Vec::new();
        for dispatch in &dispatches {
            if !names.contains(&dispatch.section) {
                names.push(dispatch.section);
            }
        }
        let part = |name: &'static str| {
            let own: Vec<_> = dispatches.iter().filter(|dispatch| dispatch.section == name).copied().collect();
            Part::new(name, runs, &own, gap_before.get(name).copied().unwrap_or(0.0))
        };
        let mut host: Vec<(&'static str, f64)> = Vec::new();
        for time in &profile.host {
            let seconds = (time.end - time.begin) / runs;
            match host.iter_mut().find(|(activity, _)| *activity == time.activity) {
                Some((_, sum)) => *sum += seconds,
                None => host.push((time.activity, seconds)),
            }
        }
        Phase {
            name,
            wall: wall / runs,
            kernels: kernels / runs,
            gaps: gaps / runs,
            host,
            dispatches: dispatches.len() as f64 / runs,
            separate_passes: profile.separate_passes,
            parts: names.into_iter().map(part).collect(),
        }
    }

    fn as_json(&self, rates: &PeakRates) -> Value {
        let host: serde_json::Map<String, Value> =
            self.host.iter().map(|(activity, seconds)| ((*activity).to_owned(), json!(seconds))).collect();
        json!({
            "phase": self.name,
            "wall_seconds": self.wall,
            "kernel_seconds": self.kernels,
            "gap_seconds": self.gaps,
            "host_seconds": host,
            "dispatches": self.dispatches,
            "separate_passes": self.separate_passes,
            "parts": self.parts.iter().map(|part| json!({
                "part": part.name,
                "seconds": part.seconds,
                "dispatches_per_pass": part.dispatches.map(|[pass, _]| pass),
                "dispatches_per_layer": part.dispatches.map(|[_, layer]| layer),
                "kernels": part.lines.iter().map(|line| line.as_json(rates)).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    }

    fn as_text(&self, rates: &PeakRates) -> String {
        let ms = |seconds: f64| format!("{:.2}", seconds * 1e3);
        let host: Vec<String> = self.host.iter().map(|(activity, time)| format!("{activity} {}", ms(*time))).collect();
        let how = if self.separate_passes { ", each in a pass of its own" } else { "" };
        let mut text = format!(
            "{}: {} ms = {} kernels + {} gaps + {} before and after; host: {}; {:.0} dispatches{how}",
            self.name,
            ms(self.wall),
            ms(self.kernels),
            ms(self.gaps),
            ms((self.wall - self.kernels - self.gaps).max(0.0)),
            host.join(", "),
            self.dispatches,
        );
        for part in &self.parts {
            let heading = format!("{} {} ms", part.name, ms(part.seconds));
            let counted = part.dispatches.map_or(String::new(), |[pass, layer]| {
                format!("\n{}: {pass:.0} dispatches a pass, {layer:.1} of them in each layer", part.name)
            });
            let columns =
                ["shape", "rows", "calls", "median µs", "total ms", "share", "GB/s", "of read", "GFLOP/s", "of mult."];
            let mut rows = vec![[vec![heading], columns.map(str::to_owned).to_vec()].concat()];
            rows.extend(part.lines.iter().map(|line| line.cells(rates)));
            text = format!("{text}\n{counted}\n{}", output::table(&rows));
        }
        text
    }
}

impl Part {
    fn new(name: &'static str, runs: f64, dispatches: &[&DispatchTime], gaps: f64) -> Part {
        let seconds = |dispatch: &DispatchTime| dispatch.end - dispatch.begin;
        let kernel_seconds: f64 = dispatches.iter().map(|dispatch| seconds(dispatch)).sum();
        // Weights and caches are read again only after all the rest of a pass.
        let stored: u64 = dispatches.iter().filter(|d| d.work.stored).map(|d| d.work.bytes).sum();
        // Attention sees a few more keys every round; the last round's work stands for all.
        let is_same = |a: &Work, b: &Work| a.rows == b.rows && a.shape == b.shape;
        let mut groups: Vec<(&'static str, Work, Vec<f64>)> = Vec::new();
        for dispatch in dispatches {
            match groups
                .iter_mut()
                .find(|(kernel, work, _)| *kernel == dispatch.kernel && is_same(work, &dispatch.work))
            {
                Some((_, work, times)) => {
                    *work = dispatch.work;
                    times.push(seconds(dispatch));
                }
                None => groups.push((dispatch.kernel, dispatch.work, vec![seconds(dispatch)])),
            }
        }
        let line = |(kernel, work, mut times): (&'static str, Work, Vec<f64>)| {
            times.sort_by(f64::total_cmp);
            let total: f64 = times.iter().sum();
            let comes_again = if work.stored { stored as f64 / runs } else { work.bytes as f64 };
            Line {
                kernel,
                work,
                calls: times.len() as f64 / runs,
                median: times[times.len() / 2],
                total: total / runs,
                share: total / kernel_seconds.max(1e-12),
                cached: comes_again < (COLD_BYTES / 4) as f64,
            }
        };
        let mut lines: Vec<Line> = groups.into_iter().map(line).collect();
        lines.sort_by(|a, b| b.total.total_cmp(&a.total));
        Part { name, seconds: (kernel_seconds + gaps) / runs, dispatches: per_pass(dispatches), lines }
    }
}

/// Dispatches of a pass, and of each of its layers, in the mean. Every pass begins with an embedding.
fn per_pass(dispatches: &[&DispatchTime]) -> Option<[f64; 2]> {
    let passes = dispatches.iter().filter(|dispatch| dispatch.kernel == "embedding").count();
    let layers = dispatches.iter().filter_map(|dispatch| dispatch.layer).max()? as usize + 1;
    let in_layers = dispatches.iter().filter(|dispatch| dispatch.layer.is_some()).count();
    (passes > 0).then(|| [dispatches.len() as f64 / passes as f64, in_layers as f64 / (passes * layers) as f64])
}

impl Line {
    /// Bytes and operations per second.
    fn rates(&self) -> [f64; 2] {
        [self.work.bytes, self.work.flops].map(|amount| amount as f64 / self.median.max(1e-9))
    }

    fn as_json(&self, rates: &PeakRates) -> Value {
        let [bytes, flops] = self.rates();
        json!({
            "kernel": self.kernel,
            "shape": self.work.shape,
            "rows": self.work.rows,
            "calls": self.calls,
            "median_seconds": self.median,
            "total_seconds": self.total,
            "share": self.share,
            "bytes": self.work.bytes,
            "flops": self.work.flops,
            "bytes_per_second": bytes,
            "flops_per_second": flops,
            "of_read": bytes / rates.read,
            "of_multiply": flops / rates.multiply,
            "cached": self.cached,
        })
    }

    fn cells(&self, rates: &PeakRates) -> Vec<String> {
        let [bytes, flops] = self.rates();
        let [height, width] = self.work.shape;
        vec![
            self.kernel.to_owned(),
            if height == 1 { width.to_string() } else { format!("{height} x {width}") },
            self.work.rows.to_string(),
            format!("{:.0}", self.calls),
            format!("{:.1}", self.median * 1e6),
            format!("{:.3}", self.total * 1e3),
            format!("{:.1} %", self.share * 100.0),
            format!("{:.2}", bytes / 1e9),
            format!("{:.0} %{}", 100.0 * bytes / rates.read, if self.cached { "*" } else { " " }),
            format!("{:.2}", flops / 1e9),
            format!("{:.0} %", 100.0 * flops / rates.multiply),
        ]
    }
}

impl Report<'_> {
    /// One prompt, for it is the same whoever decodes, then each method's round.
    fn phases(&self) -> Vec<Phase> {
        let mut phases = Vec::new();
        for measured in self.measured {
            let (options, tokens) = (&measured.options, measured.prompt_tokens - 1);
            let (prompt, round) = match options.method {
                Method::Ar => (format!("prompt of {tokens} tokens"), "step of ar".to_owned()),
                method => (
                    format!("prompt of {tokens} tokens, target and draft"),
                    format!("round of {}, K = {}", method.name(), options.drafts),
                ),
            };
            phases.push(Phase::new(prompt, 1, &measured.prefill));
            phases.push(Phase::new(round, measured.rounds, &measured.decode));
        }
        phases
    }

    /// The report as one JSON object.
    pub fn as_json(&self) -> Value {
        json!({
            "target": self.models.target.name(),
            "draft": self.models.draft.as_ref().map(|draft| &draft.name),
            "plan": self.models.plan(self.context),
            "read_bytes_per_second": self.rates.read,
            "multiply_flops_per_second": self.rates.multiply,
            "phases": self.phases().iter().map(|phase| phase.as_json(&self.rates)).collect::<Vec<_>>(),
        })
    }

    /// The report as tables.
    pub fn as_text(&self) -> String {
        let transformer = &self.models.target.weights;
        let drafted = self.models.draft.as_ref().map_or(String::new(), |draft| format!(", draft {}", draft.name));
        let heading = format!(
            "{}{drafted}\n{}; {}\nmeasured here: memory is read at {:.2} GB/s, f32 is multiplied and added at {:.1} \
             GFLOP/s\n* a cache may hold what it reads and writes",
            self.models.target.name(),
            transformer.device().name(),
            transformer.plan(),
            self.rates.read / 1e9,
            self.rates.multiply / 1e9,
        );
        let phases = self.phases();
        [vec![heading], phases.iter().map(|phase| phase.as_text(&self.rates)).collect()].concat().join("\n\n")
    }
}
