//! Whole passes, timed by the host's clock.

use std::sync::Arc;
use std::time::Instant;

use super::Spread;
use crate::error::Result;
use crate::gpu::Buffer;
use crate::model::{ModelRunner, Weights};
use crate::ops::{MAX_ROWS, Phase};

/// Passes that a GPU is given before any is waited for, as rounds are.
const PASSES_AHEAD: usize = 8;

/// A sequence on `model` with caches for `positions` positions, whose choices are not used.
///
/// # Errors
///
/// Those of [`ModelRunner::new`].
pub fn bound_sequence(model: &Arc<Weights>, positions: usize) -> Result<ModelRunner> {
    let choices = Buffer::storage(model.device(), "choices", 4 * MAX_ROWS as u64)?;
    ModelRunner::new(model, positions, model.config().vocab_size, &choices)
}

/// Bitwise comparison of a row's logits between passes of different numbers of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alike {
    /// Numbers of rows that were compared with a row alone.
    pub compared: Vec<usize>,
    /// Those that gave other bits.
    pub differing: Vec<usize>,
}

/// Times passes of each number of rows of `counts` from position 0 on, in turns, `runs` times each after one that compiles
/// the kernels; of that one the first row's logits are compared with those of the row alone. Ends early, with what there
/// is, where `keep_going` says so.
///
/// # Errors
///
/// Those of [`ModelRunner::run`].
pub fn passes(
    sequence: &ModelRunner,
    counts: &[usize],
    runs: usize,
    keep_going: &dyn Fn() -> bool,
) -> Result<(Vec<(usize, Spread)>, Alike)> {
    let device = sequence.model().device();
    let vocabulary = sequence.model().config().vocab_size;
    let tokens: Vec<u32> = (0..MAX_ROWS).map(|index| ((index * 7919 + 13) % vocabulary) as u32).collect();
    let first_row = |rows: usize| -> Result<Vec<u32>> {
        sequence.run(Phase::Decode, &tokens[..rows], 0, rows)?;
        Ok(sequence.logits(1)?.into_iter().map(f32::to_bits).collect())
    };
    let mut alike = Alike { compared: Vec::new(), differing: Vec::new() };
    let alone = first_row(1)?;
    let ahead = if device.is_software() { 1 } else { PASSES_AHEAD };
    let mut times = Vec::new();
    // Each is timed once as soon as its kernels are there, so that whatever was begun has a figure.
    for &rows in counts.iter().filter(|_| keep_going()) {
        alike.compared.push(rows);
        if first_row(rows)? != alone {
            alike.differing.push(rows);
        }
        times.push(vec![time(sequence, &tokens[..rows], 0, ahead)?]);
    }
    for _ in 1..runs {
        for (&rows, times) in alike.compared.iter().zip(&mut times).filter(|_| keep_going()) {
            times.push(time(sequence, &tokens[..rows], 0, ahead)?);
        }
    }
    let spreads = alike.compared.iter().zip(&times).filter_map(|(&rows, times)| Some((rows, Spread::of(times)?)));
    Ok((spreads.collect(), alike))
}

/// Times passes of one row at the end of each of `contexts` tokens, whatever the caches hold, as [`passes`] does.
///
/// # Errors
///
/// Those of [`ModelRunner::run`].
pub fn contexts(
    sequence: &ModelRunner,
    contexts: &[usize],
    runs: usize,
    keep_going: &dyn Fn() -> bool,
) -> Result<Vec<(usize, Spread)>> {
    let ahead = if sequence.model().device().is_software() { 1 } else { PASSES_AHEAD };
    let mut spreads = Vec::new();
    for &context in contexts.iter().filter(|_| keep_going()) {
        time(sequence, &[0], context - 1, 1)?;
        let times: Vec<f64> = (0..runs).map(|_| time(sequence, &[0], context - 1, ahead)).collect::<Result<_>>()?;
        spreads.extend(Spread::of(&times).map(|spread| (context, spread)));
    }
    Ok(spreads)
}

/// Times prompts of `tokens` tokens, `runs` times after one that compiles the kernels. None if `keep_going` ended it.
///
/// # Errors
///
/// Those of [`ModelRunner::prefill`].
pub fn prompt(
    sequence: &ModelRunner,
    tokens: usize,
    runs: usize,
    keep_going: &dyn Fn() -> bool,
) -> Result<Option<Spread>> {
    let vocabulary = sequence.model().config().vocab_size;
    let tokens: Vec<u32> = (0..tokens).map(|index| ((index * 7919 + 13) % vocabulary) as u32).collect();
    sequence.prefill(&tokens[..tokens.len().min(MAX_ROWS)], 0)?;
    let mut times = Vec::new();
    for _ in 0..runs {
        let begin = Instant::now();
        let read = sequence.prefill_while(&tokens, 0, keep_going)?;
        if read == tokens.len() {
            times.push(begin.elapsed().as_secs_f64());
        }
    }
    Ok(Spread::of(&times))
}

/// Seconds of a pass of `tokens` at `position`, `ahead` of them submitted before any is waited for.
fn time(sequence: &ModelRunner, tokens: &[u32], position: usize, ahead: usize) -> Result<f64> {
    let begin = Instant::now();
    for _ in 0..ahead {
        sequence.run(Phase::Decode, tokens, position, tokens.len())?;
    }
    sequence.model().device().wait()?;
    Ok(begin.elapsed().as_secs_f64() / ahead as f64)
}
