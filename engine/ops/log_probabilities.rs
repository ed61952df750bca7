//! Log-probabilities of tokens under a model: shaders/log_probabilities.wgsl.

use super::Tensor;
use super::argmax::token_file;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct LogProbabilitiesParams {
    vocab: u32,
    limit: u32,
    first_word: u32,
    top: u32,
}

/// The log-probabilities of a round's rows, with the operands bound.
pub struct LogProbabilities {
    dispatch: Dispatch,
    limit: usize,
    top: usize,
}

impl LogProbabilities {
    /// For row r of a round whose tokens `record` reports, as [`super::Accept`] writes it: log softmax(logits\[r, ..limit\]) of
    /// the token `record[1 + r]`, then the ids and log-probabilities of the `top` likeliest tokens, of equals the lower id
    /// first. Values are f32 bits. Row r's words begin at `first_word` + r · [`LogProbabilities::words`].
    ///
    /// Shapes: `logits` is `[rows, vocab]`; `vocabulary` has the ids of logits that are those of some tokens only. `top` is
    /// at most `limit`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    pub fn new(
        device: &Device,
        logits: &Tensor,
        limit: usize,
        vocabulary: Option<&Buffer>,
        record: &Buffer,
        first_word: usize,
        top: usize,
    ) -> Result<LogProbabilities> {
        if limit == 0 || limit > logits.width || top > limit {
            let (got, expected) = (vec![limit, top], vec![logits.width, limit]);
            return Err(Error::Shape { op: "log_probabilities", tensor: "limit and top", got, expected });
        }
        let (vocab, limit_, first_word, top_) = (logits.width as u32, limit as u32, first_word as u32, top as u32);
        let params = LogProbabilitiesParams { vocab, limit: limit_, first_word, top: top_ };
        let params = Buffer::uniform(device, "log_probabilities params", &params)?;
        let token = token_file(vocabulary);
        let kernel = device.kernel(&["log_probabilities", token], &[])?;
        let mut operands = vec![&params, &logits.buffer, record];
        operands.extend(vocabulary);
        Ok(LogProbabilities { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, limit, top })
    }

    /// Words that a row takes.
    pub fn words(top: usize) -> usize {
        1 + 2 * top
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let reads = rows * self.limit * (1 + self.top.max(1));
        self.dispatch.encode_over(pass, [rows as u32, 1, 1], Work::of(rows, [1, self.limit], 4 * reads, 2 * reads));
    }
}
