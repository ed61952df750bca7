//! Duration of a forward pass by its number of rows.

use std::time::Instant;

use super::runner::ModelRunner;
use crate::error::Result;
use crate::ops::{MAX_ROWS, Phase};

/// Duration of a pass of 1 to 32 rows, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct PassCost {
    seconds: [f64; MAX_ROWS],
}

/// Row counts that are measured where nothing is known, in ascending order.
pub(crate) const MEASURED_ROWS: [usize; 5] = [1, 2, 4, 8, 16];
/// Timed passes of each, after one that compiles the kernels.
const REPETITIONS: usize = 2;
/// Timed passes of one row where a whole answer is foretold, or timed submits of several on a GPU.
const STEADY_REPETITIONS: usize = 9;
/// Passes that a GPU is given before the first is waited for.
const PASSES_AHEAD: usize = 8;

impl PassCost {
    /// From measured points (rows, seconds), straight between them and beyond the last one. Rows must ascend; without a
    /// point nothing costs anything.
    pub fn from_points(points: &[(usize, f64)]) -> PassCost {
        let mut seconds = [0.0; MAX_ROWS];
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

    /// The durations, of 1 row first.
    pub(super) fn seconds(&self) -> &[f64] {
        &self.seconds
    }

    /// Measures a few passes of `sequence`, whose caches are overwritten.
    ///
    /// # Errors
    ///
    /// Those of [`ModelRunner::run`].
    pub fn measure(sequence: &ModelRunner) -> Result<PassCost> {
        let points = time_passes(sequence, 0, &MEASURED_ROWS, 0, REPETITIONS, 1)?;
        Ok(PassCost::from_points(&points))
    }

    /// Seconds that a pass of `rows` rows takes in slot `slot`, whose caches are overwritten from `position` on.
    ///
    /// # Errors
    ///
    /// Those of [`ModelRunner::run`].
    pub(crate) fn measure_point(sequence: &ModelRunner, slot: usize, position: usize, rows: usize) -> Result<f64> {
        Ok(time_passes(sequence, slot, &[rows], position, REPETITIONS, 1)?[0].1)
    }

    /// The same as a long answer takes it: a GPU is given passes ahead, as it is there, and one row counts most.
    ///
    /// # Errors
    ///
    /// Those of [`ModelRunner::run`].
    pub fn measure_steadily(sequence: &ModelRunner) -> Result<PassCost> {
        let (alone, ahead) = (STEADY_REPETITIONS, passes_ahead(sequence));
        let one = time_passes(sequence, 0, &[1], 0, alone, ahead)?;
        let more = time_passes(sequence, 0, &MEASURED_ROWS[1..], 0, REPETITIONS, ahead)?;
        Ok(PassCost::from_points(&[one, more].concat()))
    }

    /// Seconds that a pass of one row takes at `position`, whatever the caches hold.
    ///
    /// # Errors
    ///
    /// Those of [`ModelRunner::run`].
    pub fn measure_at(sequence: &ModelRunner, position: usize) -> Result<f64> {
        Ok(time_passes(sequence, 0, &[1], position, REPETITIONS + 1, passes_ahead(sequence))?[0].1)
    }

    /// Measures passes of the given numbers of rows in turns, each `repetitions` times after one that compiles the
    /// kernels, and gives the median of each.
    ///
    /// # Errors
    ///
    /// Those of [`ModelRunner::run`].
    pub fn measure_rows(sequence: &ModelRunner, counts: &[usize], repetitions: usize) -> Result<Vec<(usize, f64)>> {
        time_passes(sequence, 0, counts, 0, repetitions, 1)
    }

    /// Seconds for `rows` rows; a fraction of a row costs its share.
    pub fn of(&self, rows: f64) -> f64 {
        let rows = rows.clamp(1.0, MAX_ROWS as f64);
        let below = rows.floor() as usize;
        let [low, high] = [below, (below + 1).min(MAX_ROWS)].map(|rows| self.seconds[rows - 1]);
        low + (high - low) * (rows - below as f64)
    }
}

/// Passes that are submitted before any is waited for, as rounds are.
fn passes_ahead(sequence: &ModelRunner) -> usize {
    if sequence.model().device().is_software() { 1 } else { PASSES_AHEAD }
}

/// The median time of a pass of each number of rows from `position` on, `ahead` of them submitted before any is waited
/// for. Those that are not counted compile the kernels. Tokens differ, so that rows take experts of their own.
fn time_passes(
    sequence: &ModelRunner,
    slot: usize,
    counts: &[usize],
    position: usize,
    repetitions: usize,
    ahead: usize,
) -> Result<Vec<(usize, f64)>> {
    let mut times = vec![Vec::new(); counts.len()];
    let vocabulary = sequence.model().config().vocab_size;
    let tokens: Vec<u32> = (0..MAX_ROWS).map(|index| ((index * 7919 + 13) % vocabulary) as u32).collect();
    for repetition in 0..=repetitions {
        for (&rows, times) in counts.iter().zip(&mut times) {
            let begin = Instant::now();
            for _ in 0..ahead {
                sequence.run_slot(slot, Phase::Decode, &tokens[..rows], position, rows)?;
            }
            sequence.model().device().wait()?;
            if repetition > 0 {
                times.push(begin.elapsed().as_secs_f64() / ahead as f64);
            }
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get((times.len().max(1) - 1) / 2).copied().unwrap_or(0.0)
    };
    Ok(counts.iter().copied().zip(times.into_iter().map(median)).collect())
}
