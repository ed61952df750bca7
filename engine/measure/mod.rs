//! Performance of an adapter at the shapes of known models: passes by their rows, kernels by the device's own clock, long
//! contexts, prompts. Every figure is the median of several runs and comes with their spread.

mod passes;
mod profiled;

pub use passes::{Alike, bound_sequence, contexts, passes, prompt};
pub use profiled::{KernelTime, kernels, profiled};

pub use crate::model::made::{MadeModel, MadeWeights, Shape};

/// Several runs of the same work, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle run; of an even number, the slower of the two.
    pub median: f64,
    /// The fastest.
    pub least: f64,
    /// The slowest.
    pub most: f64,
    /// Number of runs.
    pub runs: usize,
}

impl Spread {
    /// The spread of `times`; none if there are no times.
    pub fn of(times: &[f64]) -> Option<Spread> {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&least, &most) = (sorted.first()?, sorted.last()?);
        Some(Spread { median: sorted[sorted.len() / 2], least, most, runs: sorted.len() })
    }
}
