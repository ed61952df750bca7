//! Activities of the host while a profile is taken.

use std::sync::Mutex;
use std::time::Instant;

use super::lock::lock;

/// Something the host did, or waited for. Times are seconds since the profile began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostTime {
    /// `encode`, `submit` or `wait`.
    pub activity: &'static str,
    /// Time at which it began.
    pub begin: f64,
    /// Time at which it ended.
    pub end: f64,
}

/// Record of them: the time at which it began, and what has happened since.
#[derive(Default)]
pub(super) struct HostTimes(Mutex<Option<(Instant, Vec<HostTime>)>>);

impl HostTimes {
    /// Begins a record at `begin`.
    pub fn start(&self, begin: Instant) {
        *lock(&self.0) = Some((begin, Vec::new()));
    }

    /// Adds what began at `begin` and ends now, if there is a record.
    pub fn push(&self, activity: &'static str, begin: Instant) {
        if let Some((start, times)) = lock(&self.0).as_mut() {
            let since = |at: Instant| at.saturating_duration_since(*start).as_secs_f64();
            times.push(HostTime { activity, begin: since(begin), end: since(Instant::now()) });
        }
    }

    /// Ends the record.
    pub fn end(&self) -> Vec<HostTime> {
        let record = lock(&self.0).take();
        record.map_or_else(Vec::new, |(_, times)| times)
    }
}
