//! A profile in the trace-event format, which Perfetto and Chrome show:
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>

use pard::low_level::gpu::Profile;
use serde_json::{Value, json};

use super::report::Measured;

/// The track of the device's kernels and that of the host's work.
const TRACKS: [(u32, &str); 2] = [(1, "GPU"), (2, "CPU")];

/// The profiles of all decoders one after the other, as a trace.
pub fn chrome(measured: &[Measured]) -> Value {
    let parts = measured.iter().flat_map(|measured| {
        let name = |what: &str| format!("{} {what}", measured.options.method.name());
        [("prompt", &measured.prefill), ("rounds", &measured.decode)]
            .map(|(what, (profile, seconds))| (name(what), profile, *seconds))
    });
    of_profiles(parts)
}

/// Named profiles one after the other, each with the seconds it took, as a trace.
pub fn of_profiles<'a>(parts: impl IntoIterator<Item = (String, &'a Profile, f64)>) -> Value {
    let mut events = vec![json!({ "ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": { "name": "pard" } })];
    for (track, name) in TRACKS {
        events.push(json!({ "ph": "M", "pid": 1, "tid": track, "name": "thread_name", "args": { "name": name } }));
    }
    let mut start = 0.0;
    for (name, profile, seconds) in parts {
        events.push(span(&name, "pard", 2, start, start + seconds, json!({})));
        events.extend(spans(profile, start));
        start += seconds + 1e-3;
    }
    json!({ "displayTimeUnit": "ms", "traceEvents": events })
}

/// Kernels and the host's work, `start` seconds after the trace's begin.
fn spans(profile: &Profile, start: f64) -> impl Iterator<Item = Value> {
    let kernels = profile.submits.iter().flatten().map(move |dispatch| {
        let work = &dispatch.work;
        let arguments = json!({
            "rows": work.rows, "shape": work.shape, "bytes": work.bytes, "flops": work.flops, "part": dispatch.section,
        });
        span(dispatch.kernel, "kernel", 1, start + dispatch.begin, start + dispatch.end, arguments)
    });
    let host = profile.host.iter();
    kernels.chain(host.map(move |host| span(host.activity, "host", 2, start + host.begin, start + host.end, json!({}))))
}

/// A complete event. Times are microseconds.
fn span(name: &str, category: &str, track: u32, begin: f64, end: f64, arguments: Value) -> Value {
    json!({
        "ph": "X", "pid": 1, "tid": track, "name": name, "cat": category,
        "ts": begin * 1e6, "dur": (end - begin).max(0.0) * 1e6, "args": arguments,
    })
}
