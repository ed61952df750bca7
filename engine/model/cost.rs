//! What a forward pass takes, by its rows.

use std::time::Instant;

use super::sequence::Sequence;
use crate::error::Result;
use crate::ops::{MOST_ROWS, Role};

/// What a pass of 1 to 32 rows takes, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct PassCost {
    seconds: [f64; MOST_ROWS],
}

/// Row counts that are measured where nothing is known.
const MEASURED_ROWS: [usize; 5] = [1, 2, 4, 8, 16];
/// Timed passes of each, after one that compiles the kernels.
const REPETITIONS: usize = 2;

impl PassCost {
    /// From measured points (rows, seconds), straight between them and beyond the last one. Rows must ascend; without a
    /// point nothing costs anything.
    pub fn from_points(points: &[(usize, f64)]) -> PassCost {
        let mut seconds = [0.0; MOST_ROWS];
        for (index, seconds) in seconds.iter_mut().enumerate() {
            let rows = index + 1;
            let above = points.iter().position(|(at, _)| *at >= rows).unwrap_or(points.len().saturating_sub(1));
            *seconds = match (above.checked_sub(1).map(|below| points[below]), points.get(above)) {
                (Some((r0, t0)), Some(&(r1, t1))) => t0 + (t1 - t0) * (rows as f64 - r0 as f64) / (r1 - r0) as f64,
                (None, Some(&(_, time))) => time,
                _ => 0.0,
            };
        }
        PassCost { seconds }
    }

    /// Measures a few passes of `sequence`, whose caches are overwritten.
    ///
    /// **Errors**: those of [`Sequence::run`].
    pub fn measure(sequence: &Sequence) -> Result<PassCost> {
        PassCost::measure_slot(sequence, 0)
    }

    /// The same, in slot `slot` of the caches.
    ///
    /// **Errors**: those of [`Sequence::run`].
    pub(crate) fn measure_slot(sequence: &Sequence, slot: usize) -> Result<PassCost> {
        let points = measure_rows(sequence, slot, &MEASURED_ROWS, REPETITIONS)?;
        Ok(PassCost::from_points(&points))
    }

    /// Measures passes of the given numbers of rows in turns, each `repetitions` times after one that compiles the
    /// kernels, and gives the median of each.
    ///
    /// **Errors**: those of [`Sequence::run`].
    pub fn measure_rows(sequence: &Sequence, counts: &[usize], repetitions: usize) -> Result<Vec<(usize, f64)>> {
        measure_rows(sequence, 0, counts, repetitions)
    }

    /// Seconds for `rows` rows; a fraction of a row costs its share.
    pub fn of(&self, rows: f64) -> f64 {
        let rows = rows.clamp(1.0, MOST_ROWS as f64);
        let below = rows.floor() as usize;
        let [low, high] = [below, (below + 1).min(MOST_ROWS)].map(|rows| self.seconds[rows - 1]);
        low + (high - low) * (rows - below as f64)
    }
}

fn measure_rows(sequence: &Sequence, slot: usize, counts: &[usize], repetitions: usize) -> Result<Vec<(usize, f64)>> {
    let mut times = vec![Vec::new(); counts.len()];
    for repetition in 0..=repetitions {
        for (&rows, times) in counts.iter().zip(&mut times) {
            let begin = Instant::now();
            sequence.run_slot(slot, Role::Round, &vec![0; rows], 0, rows)?;
            sequence.model().device().wait()?;
            if repetition > 0 {
                times.push(begin.elapsed().as_secs_f64());
            }
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get((times.len().max(1) - 1) / 2).copied().unwrap_or(0.0)
    };
    Ok(counts.iter().copied().zip(times.into_iter().map(median)).collect())
}
