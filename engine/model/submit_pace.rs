//! Number of prompt rows in one submit. Drivers reset a GPU that works on one for seconds (Windows: two), and its
//! duration is known only afterwards. It never changes a result: a row of a prompt does not depend on its chunk.

use std::time::Duration;

/// Target duration of a submit.
const AIM: Duration = Duration::from_millis(300);
/// Rows of the first submit, and the fewest of any.
const FIRST: usize = 64;
const FEWEST: usize = 16;
/// Largest growth of a submit's rows over the one before.
const GROWTH: usize = 4;

/// Rows for the next submit, by how long the last ones took.
#[derive(Debug, Clone)]
pub struct SubmitPace {
    rows: usize,
    most: usize,
    is_bound: bool,
}

impl SubmitPace {
    /// For submits of at most `most` rows. It begins with few.
    pub fn new(most: usize) -> SubmitPace {
        SubmitPace { rows: FIRST.min(most).max(1), most: most.max(1), is_bound: true }
    }

    /// Submits of `most` rows, however long they take: no driver resets a CPU.
    pub fn unbounded(most: usize) -> SubmitPace {
        SubmitPace { rows: most.max(1), most: most.max(1), is_bound: false }
    }

    /// Rows that the next submit may take.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes note of a submit of `rows` rows that took `time`.
    pub fn took(&mut self, rows: usize, time: Duration) {
        if !self.is_bound {
            return;
        }
        let affordable = rows as f64 * AIM.as_secs_f64() / time.as_secs_f64().max(1e-6);
        // At most `GROWTH` times as many rows; a small submit does not lower a number that it affords.
        let next = affordable.min((GROWTH * rows) as f64) as usize;
        let next = if affordable >= self.rows as f64 { next.max(self.rows) } else { next };
        self.rows = next.max(FEWEST).min(self.most);
    }
}
