//! Metrics, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pard::decoding::{MAX_DRAFTS, RoundStatistics, Statistics};

use super::queue::{Phase, Queue};

/// Upper bounds of the histograms' buckets, in seconds.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Likewise of passes, in rows.
const ROWS: [f64; 11] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0, 24.0, 32.0];

/// All counters.
#[derive(Default)]
pub struct Metrics {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// By path and status.
    requests: BTreeMap<(String, u16), u64>,
    prompt_tokens: u64,
    reused_tokens: u64,
    answer_tokens: u64,
    rounds: u64,
    /// Rounds without a proposal.
    plain_rounds: u64,
    forced_tokens: u64,
    grammar: Duration,
    pass_rows: Histogram,
    /// By position of the draft.
    proposed: [u64; MAX_DRAFTS],
    accepted: [u64; MAX_DRAFTS],
    rebuilds: u64,
    idle_sessions: usize,
    busy_sessions: usize,
    queue_wait: Histogram,
    first_token: Histogram,
    answer: Histogram,
    round: Histogram,
}

#[derive(Default)]
struct Histogram {
    /// As many as bounds, and one more for what is above them all; none as long as nothing was observed.
    buckets: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, time: Duration) {
        self.observe_in(&BOUNDS, time.as_secs_f64());
    }

    fn observe_in(&mut self, bounds: &[f64], value: f64) {
        let bucket = bounds.iter().position(|&bound| value <= bound).unwrap_or(bounds.len());
        self.buckets.resize(bounds.len() + 1, 0);
        self.buckets[bucket] += 1;
        self.sum += value;
    }
}

impl Metrics {
    /// A request was answered, or its answer has begun.
    pub fn request(&self, path: &str, status: u16) {
        *self.counts().requests.entry((path.to_owned(), status)).or_default() += 1;
    }

    /// A prompt was read.
    pub fn read(&self, tokens: usize, reused: usize) {
        let mut counts = self.counts();
        counts.prompt_tokens += tokens as u64;
        counts.reused_tokens += reused as u64;
    }

    /// A round was run, of which `kept` tokens are part of an answer.
    pub fn round(&self, round: RoundStatistics, kept: usize) {
        let mut counts = self.counts();
        counts.rounds += 1;
        counts.plain_rounds += u64::from(round.proposed == 0);
        counts.answer_tokens += kept as u64;
        counts.proposed.iter_mut().take(round.proposed).for_each(|count| *count += 1);
        counts.accepted.iter_mut().take(round.accepted).for_each(|count| *count += 1);
        counts.round.observe(round.time);
    }

    /// The target was run over so many rows of one answer or several.
    pub fn pass(&self, rows: usize) {
        self.counts().pass_rows.observe_in(&ROWS, rows as f64);
    }

    /// A request's first token was written, so long after it came.
    pub fn first_token(&self, time: Duration) {
        self.counts().first_token.observe(time);
    }

    /// An answer is complete.
    pub fn answered(&self, waited: Duration, took: Duration, statistics: &Statistics) {
        let mut counts = self.counts();
        counts.forced_tokens += statistics.forced as u64;
        counts.grammar += statistics.grammar;
        counts.queue_wait.observe(waited);
        counts.answer.observe(took);
    }

    /// The device was lost, and the models were loaded again.
    pub fn rebuilt(&self) {
        self.counts().rebuilds += 1;
    }

    pub fn sessions(&self, busy: usize, idle: usize) {
        let mut counts = self.counts();
        (counts.busy_sessions, counts.idle_sessions) = (busy, idle);
    }

    /// All of it as text.
    pub fn text(&self, queue: &Queue) -> String {
        let (waiting, busy) = queue.depth();
        let ready = u64::from(queue.phase() == Phase::Ready);
        let counts = self.counts();
        let mut page = Page::default();
        page.heading("requests_total", "counter", "Requests by path and status.");
        for ((path, status), count) in &counts.requests {
            page.value("requests_total", &format!("{{path=\"{path}\",status=\"{status}\"}}"), *count);
        }
        page.plain(
            "prompt_tokens_total",
            "counter",
            "Tokens of the prompts of complete answers.",
            counts.prompt_tokens,
        );
        page.plain("reused_tokens_total", "counter", "Those that the caches held.", counts.reused_tokens);
        page.plain("answer_tokens_total", "counter", "Tokens written.", counts.answer_tokens);
        page.plain("rounds_total", "counter", "Rounds of answers that wrote them.", counts.rounds);
        page.plain("plain_rounds_total", "counter", "Those without a proposal.", counts.plain_rounds);
        page.plain("forced_tokens_total", "counter", "Proposals that grammars forced.", counts.forced_tokens);
        page.heading("grammar_seconds_total", "counter", "Time that the host worked on grammars.");
        page.value("grammar_seconds_total", "", counts.grammar.as_secs_f64());
        let help = "Rows of each pass of the target: of one answer and its proposals, or of several answers.";
        page.histogram("pass_rows", help, &ROWS, &counts.pass_rows);
        for (name, help, values) in [
            ("proposed_total", "Proposals by position of the draft.", &counts.proposed),
            ("accepted_total", "Proposals that were accepted, by position of the draft.", &counts.accepted),
        ] {
            page.heading(name, "counter", help);
            for (position, count) in values.iter().enumerate() {
                page.value(name, &format!("{{position=\"{}\"}}", position + 1), *count);
            }
        }
        page.plain("queue_depth", "gauge", "Answers that wait for their turn.", waiting as u64);
        page.plain("answers_running", "gauge", "Answers that are being written.", busy as u64);
        page.heading("sessions", "gauge", "Decoders with caches.");
        page.value("sessions", "{state=\"busy\"}", counts.busy_sessions as u64);
        page.value("sessions", "{state=\"idle\"}", counts.idle_sessions as u64);
        page.plain("ready", "gauge", "Whether the models are loaded.", ready);
        page.plain("device_rebuilds_total", "counter", "How often the device was lost and had again.", counts.rebuilds);
        for (name, help, histogram) in [
            ("queue_seconds", "Time from an answer's request to its turn.", &counts.queue_wait),
            ("first_token_seconds", "Time from an answer's request to its first token.", &counts.first_token),
            ("answer_seconds", "Time from an answer's turn to its end.", &counts.answer),
            ("round_seconds", "Time of a round.", &counts.round),
        ] {
            page.histogram(name, help, &BOUNDS, histogram);
        }
        page.text
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text as far as it is written. Writing to a string does not fail.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn heading(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP pard_{name} {help}\n# TYPE pard_{name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.text, "pard_{name}{labels} {value}");
    }

    fn plain(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.heading(name, kind, help);
        self.value(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, bounds: &[f64], histogram: &Histogram) {
        self.heading(name, "histogram", help);
        let mut sum = 0;
        for (index, bound) in bounds.iter().enumerate() {
            sum += histogram.buckets.get(index).unwrap_or(&0);
            self.value(&format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), sum);
        }
        sum += histogram.buckets.get(bounds.len()).unwrap_or(&0);
        self.value(&format!("{name}_bucket"), "{le=\"+Inf\"}", sum);
        let _ = writeln!(self.text, "pard_{name}_sum {}", histogram.sum);
        self.value(&format!("{name}_count"), "", sum);
    }
}
