//! Counts of each token written, kept on the device: shaders/kernels/token_counts.wgsl.

use super::round::RECORD_CONSTANT;
use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct TokenCountsParams {
    ids: u32,
}

/// The counting of a round's tokens, with its operands bound.
pub struct TokenCounts {
    dispatch: Dispatch,
}

impl TokenCounts {
    /// `counts[slot, id] += 2` for each of the tokens that `record` reports, as [`super::Accept`] writes it, for the turns
    /// whose sampling parameters ask for it.
    ///
    /// Shapes: `turns` and `sampling` are [`super::Turn::buffer`]'s and [`super::TurnSampling::buffer`]'s; `counts` holds a
    /// u32 for each of `ids` ids, for each slot; see [`TokenCounts::of_text`].
    ///
    /// # Errors
    ///
    /// [`crate::Error::Gpu`].
    pub fn new(
        device: &Device,
        [turns, sampling]: [&Buffer; 2],
        record: &Buffer,
        counts: &Buffer,
        ids: usize,
    ) -> Result<TokenCounts> {
        let params = Buffer::uniform(device, "token_counts params", &TokenCountsParams { ids: ids as u32 })?;
        let kernel = device.kernel(&["token_counts", "shared/round", "shared/sampling"], &[RECORD_CONSTANT])?;
        let operands = [&params, turns, record, counts, sampling];
        Ok(TokenCounts { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])? })
    }

    /// The counts after `answer` to `prompt`, of a vocabulary of `vocab` tokens: 2 for each time that the answer has an
    /// id, and 1 more if the prompt has it.
    pub fn of_text(prompt: &[u32], answer: &[u32], vocab: usize) -> Vec<u32> {
        let mut counts = vec![0; vocab];
        for &id in prompt {
            if let Some(count) = counts.get_mut(id as usize) {
                *count = 1;
            }
        }
        for &id in answer {
            if let Some(count) = counts.get_mut(id as usize) {
                *count += 2;
            }
        }
        counts
    }

    /// Records it for `turns` turns that commit `tokens` tokens at most.
    pub fn encode(&self, pass: &mut Pass, turns: usize, tokens: usize) {
        self.dispatch.encode_over(pass, [turns as u32, 1, 1], Work::of(tokens, [1, 1], 12 * tokens, tokens));
    }
}
