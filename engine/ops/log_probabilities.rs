//! Log-probabilities of tokens under a model: shaders/kernels/log_probabilities.wgsl.

use super::Tensor;
use super::argmax::token_file;
use super::rows::{CHOICES_CONSTANT, OUTPUT_FILES};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct LogProbabilitiesParams {
    vocab: u32,
    limit: u32,
    first_word: u32,
    words: u32,
}

/// The log-probabilities of a pass's output rows, with the operands bound.
pub struct LogProbabilities {
    dispatch: Dispatch,
    limit: usize,
    top: usize,
}

impl LogProbabilities {
    /// For each output row r of turns that want them: log softmax(logits\[r, ..limit\]) of the token
    /// `choices[batch[r].choice]`, then the ids and log-probabilities of the likeliest tokens, of equals the lower id first,
    /// as many as the turn's sampling parameters say, `limit` and `top` at most. Values are f32 bits. Row r's words begin at
    /// `first_word` + r · [`LogProbabilities::words`] of `record`.
    ///
    /// Shapes: `batch` and `sampling` are [`super::PassRow::buffer`]'s and [`super::TurnSampling::buffer`]'s; `logits` is
    /// `[rows, vocab]`; `vocabulary` has the ids of logits that are those of some tokens only.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    #[expect(clippy::too_many_arguments, reason = "operands of a kernel")]
    pub fn new(
        device: &Device,
        [batch, sampling]: [&Buffer; 2],
        logits: &Tensor,
        limit: usize,
        vocabulary: Option<&Buffer>,
        choices: &Buffer,
        record: &Buffer,
        [first_word, top]: [usize; 2],
    ) -> Result<LogProbabilities> {
        if limit == 0 || limit > logits.width {
            let (got, expected) = (vec![logits.rows, limit], vec![logits.rows, logits.width]);
            return Err(Error::Shape { op: "log_probabilities", tensor: "limit", got, expected });
        }
        let [vocab, limit_, first_word, words] =
            [logits.width, limit, first_word, LogProbabilities::words(top)].map(|count| count as u32);
        let params = LogProbabilitiesParams { vocab, limit: limit_, first_word, words };
        let params = Buffer::uniform(device, "log_probabilities params", &params)?;
        let token = token_file(vocabulary);
        let files =
            [&["log_probabilities", "shared/reduce", "shared/lowest", "shared/sampling", token][..], &OUTPUT_FILES]
                .concat();
        let kernel = device.kernel(&files, &[CHOICES_CONSTANT])?;
        let mut operands = vec![&params, &logits.buffer, record, choices];
        operands.extend(vocabulary.into_iter().chain([batch, sampling]));
        Ok(LogProbabilities { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, limit, top })
    }

    /// Words that a row with the `top` likeliest tokens takes.
    pub fn words(top: usize) -> usize {
        1 + 2 * top
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let reads = rows * self.limit * (1 + self.top.max(1));
        self.dispatch.encode_over(pass, [rows as u32, 1, 1], Work::of(rows, [1, self.limit], 4 * reads, 2 * reads));
    }
}
