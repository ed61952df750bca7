//! The target as a teacher: its distribution of the token after each token of a pass, which a draft's rows are to have too.
//!
//! The target reads each sample once, without masks. A row needs the target's distribution at its position, so the rows
//! of all segments share its states. Logits exist for a few rows at a time, as the draft's do.

use std::sync::Arc;

use super::rows::PackedRows;
use crate::checkpoint::config::TargetLayers;
use crate::error::{Error, OptionName, Result};
use crate::gpu::{Buffer, Device, Pass};
use crate::model::{Features, ModelRunner, Weights, read_states};
use crate::ops::gradients::{CrossEntropy, Label, RowLoss};
use crate::ops::{Epilogue, Gather, Matmul, Phase, RmsNorm, RowRange, Step, Tensor};

/// Loss of a row: `cross_entropy · −ln p(token) + divergence · KL(teacher || draft)`, times the row's weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// Weight of the cross-entropy.
    pub cross_entropy: f32,
    /// Weight of the divergence.
    pub divergence: f32,
    /// `true` to weight each row by the teacher's probability of the tokens that its masks stand for: a proposal is worth
    /// something only if those before it are accepted. Otherwise all rows have the same weight.
    pub by_acceptance: bool,
}

impl Loss {
    /// PARD's (arXiv:2504.18583): the tokens of the text alone.
    pub const TEXT: Loss = Loss { cross_entropy: 1.0, divergence: 0.0, by_acceptance: false };
    /// PARD-2's (arXiv:2605.08632): mostly the teacher, and each row by its chance to be reached.
    pub const TEACHER: Loss = Loss { cross_entropy: 0.1, divergence: 1.0, by_acceptance: true };
}

/// Target used as the teacher, bound.
pub struct Teacher {
    device: Device,
    sequence: ModelRunner,
    /// States of the pass's tokens, in their rows; the rows of masks are not used.
    states: Tensor,
    step: Buffer,
    /// Rows of `states` for the next logits.
    rows: Buffer,
    gather: Gather,
    norm: RmsNorm,
    product: Matmul,
    logits: Tensor,
    labels: Buffer,
    losses: Buffer,
    /// Cross-entropy of the teacher's own logits.
    surprise: CrossEntropy,
    kept: Option<Kept>,
}

/// Teacher states that a draft reads in addition to tokens.
struct Kept {
    features: Features,
    /// Those of the pass's tokens, in their rows; the last row is what a first token reads, zeros.
    of_tokens: Tensor,
    /// Row of `of_tokens` for each row of the pass.
    sources: Buffer,
    gather: Gather,
}

impl Teacher {
    /// Binds `target`, for passes of `rows` rows and samples of `positions` tokens; logits are of the head's rows
    /// `vocabulary`, or of its first `width`, for as many rows at a time as `chunk` says.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if its head has fewer rows; [`Error::OutOfMemory`], [`Error::Limit`].
    pub fn new(
        target: &Arc<Weights>,
        [rows, positions, chunk]: [usize; 3],
        vocabulary: Option<&[u32]>,
        width: usize,
    ) -> Result<Teacher> {
        let device = target.device();
        let vocab = target.config().vocab_size;
        let last = vocabulary.map_or(width, |ids| ids.last().map_or(0, |&id| id as usize + 1));
        if last > vocab {
            let reason =
                format!("the draft knows {last} tokens and the teacher {vocab}; they have to share a tokenizer");
            return Err(Error::Option { option: OptionName::Teacher, reason });
        }
        let all: Vec<u32>;
        let gathered = match vocabulary {
            None if width == vocab => None,
            Some(ids) => Some(target.head().gather(device, "teacher's head", ids)?),
            None => {
                all = (0..width as u32).collect();
                Some(target.head().gather(device, "teacher's head", &all)?)
            }
        };
        let head = gathered.as_ref().unwrap_or_else(|| target.head());
        let words = |label, count: usize| Buffer::storage(device, label, 4 * count as u64);
        let hidden = target.config().hidden_size;
        let tensor = |label, rows, width| Tensor::new(device, label, rows, width);
        let states = tensor("teacher's states", rows, hidden)?;
        let [picked, normed] =
            [tensor("teacher's rows", chunk, hidden)?, tensor("teacher's normed rows", chunk, hidden)?];
        let logits = tensor("teacher's logits", chunk, head.outputs())?;
        let step = Buffer::shared::<Step>(device, "teacher's step")?;
        let chosen = words("teacher's row ids", chunk)?;
        let labels = Buffer::storage(device, "teacher's labels", (rows * size_of::<Label>()) as u64)?;
        let losses = Buffer::storage(device, "teacher's losses", (rows * size_of::<RowLoss>()) as u64)?;
        let (norm, epsilon) = (&target.final_norm, target.config().norm_epsilon as f32);
        let choices = words("teacher's choices", crate::ops::MAX_ROWS)?;
        Ok(Teacher {
            sequence: ModelRunner::new(target, positions, vocab, &choices)?,
            gather: Gather::new(device, &chosen, [&states, &picked])?,
            norm: RmsNorm::new(device, &step, [&picked, &normed], norm, epsilon, RowRange::All)?,
            product: Matmul::new(
                device,
                target.plan(),
                &step,
                head,
                [&normed, &logits],
                Epilogue::Store,
                RowRange::All,
            )?,
            surprise: CrossEntropy::new(device, &step, &logits, None, &labels, &losses)?,
            kept: None,
            device: device.clone(),
            states,
            step,
            rows: chosen,
            logits,
            labels,
            losses,
        })
    }

    /// Its logits of the rows that were encoded last, `[chunk, head]`.
    pub fn logits(&self) -> &Tensor {
        &self.logits
    }

    /// Makes [`Teacher::read`] write the states that `layers` names to `into`, each times their scale.
    ///
    /// Shapes: `into` is `[rows, layers · hidden]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if it has no such states; [`Error::OutOfMemory`], [`Error::Limit`].
    pub fn keep(&mut self, layers: &TargetLayers, into: &Tensor) -> Result<()> {
        let (device, rows) = (&self.device, self.states.rows);
        let of_tokens = Tensor::new(device, "features of tokens", rows + 1, into.width)?;
        let sources = Buffer::storage(device, "sources of features", 4 * rows as u64)?;
        self.kept = Some(Kept {
            features: Features::new(&self.sequence, layers, layers.scale)?,
            gather: Gather::new(device, &sources, [&of_tokens, into])?,
            of_tokens,
            sources,
        });
        Ok(())
    }

    /// Reads the tokens of `packed`, each sample from its beginning. With [`Teacher::keep`], each row for which `reads`
    /// says so gets the states of the token before the last one that it sees, as the first mask after that token does and
    /// all masks that follow it; the others, and the first token of a sample, get zeros.
    ///
    /// # Errors
    ///
    /// [`Error::TokenRange`] for a token that it does not have; as [`Device::check`](crate::gpu::GpuContext::check).
    pub fn read(&self, packed: &PackedRows, reads: impl Fn(usize) -> bool) -> Result<()> {
        let features = self.kept.as_ref().map(|kept| (&kept.features, &kept.of_tokens));
        let samples = packed.samples();
        for tokens in &samples {
            read_states(&self.sequence, &packed.ids[tokens.clone()], &self.states, tokens.start, features)?;
        }
        let Some(kept) = &self.kept else { return Ok(()) };
        let nothing = (kept.of_tokens.rows - 1) as u32;
        let source = |row: usize| {
            // The last token that the row sees: itself, or the one that its chain of masks follows.
            let anchor = match packed.segments[row] {
                0 => row,
                _ => packed.rows[row].context_end as usize - 1,
            };
            let is_first = samples.iter().any(|tokens| tokens.start == anchor);
            if is_first || !reads(row) { nothing } else { anchor as u32 - 1 }
        };
        let rows = packed.rows.len();
        kept.sources.write(&self.device, 0, &(0..rows).map(source).collect::<Vec<_>>());
        Pass::submit(&self.device, None, |pass| {
            pass.section("teacher");
            kept.gather.encode(pass, rows);
            Ok(())
        })
    }

    /// Selects the states of `rows`, one after the other, for the next [`Teacher::encode`].
    pub fn ask(&self, rows: &[u32], first: usize) {
        self.rows.write(&self.device, 0, rows);
        let count = rows.len() as u32;
        let step = Step { rows: count, first_output: first as u32, outputs: count, ..Step::default() };
        self.step.write(&self.device, 0, &[step]);
    }

    /// Records its logits of the `rows` rows that were asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Compile`] if a kernel does not compile.
    pub fn encode(&self, pass: &mut Pass, rows: usize) -> Result<()> {
        self.gather.encode(pass, rows);
        self.norm.encode(pass, rows);
        self.product.encode(pass, Phase::Prefill, rows)
    }

    /// For each row of `packed`, the chance that the teacher would write the tokens that the masks up to it stand for:
    /// the product of its probabilities of those tokens. `index_of` finds a token among the logits; one that is not there
    /// has none.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn reached(&self, packed: &PackedRows, index_of: impl Fn(u32) -> Option<u32>) -> Result<Vec<f32>> {
        let tokens: Vec<u32> = packed.samples().into_iter().flatten().map(|row| row as u32).collect();
        let index = |row: u32| packed.labels[row as usize].and_then(&index_of);
        let label = |&row: &u32| Label { id: index(row).unwrap_or(Label::NONE), weight: 0.0, divergence_weight: 0.0 };
        self.labels.write(&self.device, 0, &tokens.iter().map(label).collect::<Vec<_>>());
        for (chunk, rows) in tokens.chunks(self.logits.rows).enumerate() {
            self.ask(rows, chunk * self.logits.rows);
            Pass::submit(&self.device, None, |pass| {
                pass.section("teacher");
                self.encode(pass, rows.len())?;
                self.surprise.encode(pass, rows.len());
                Ok(())
            })?;
        }
        let losses: Vec<RowLoss> = self.losses.read(&self.device, 0, tokens.len())?;
        let mut chances = vec![0.0; packed.rows.len()];
        for (&row, loss) in tokens.iter().zip(&losses) {
            if index(row).is_some() {
                chances[row as usize] = (-loss.cross_entropy).exp();
            }
        }
        // A mask is reached if the row before it in its chain is, and its predicted token is written.
        let mut reached = vec![1.0; packed.rows.len()];
        for (row, &segment) in packed.segments.iter().enumerate().filter(|&(_, &segment)| segment > 0) {
            let before = match segment {
                1 => packed.rows[row].context_end as usize - 1,
                _ => row - 1,
            };
            reached[row] = reached[before] * chances[packed.token_row(before)];
        }
        Ok(reached)
    }
}
