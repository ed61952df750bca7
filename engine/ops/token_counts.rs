//! Counts of each token written, kept on the device: shaders/token_counts.wgsl.

use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

/// The counting of a round's tokens, with its operands bound.
pub struct TokenCounts {
    dispatch: Dispatch,
}

impl TokenCounts {
    /// `counts[id] += 2` for each of the tokens that `record` reports, as [`super::Accept`] writes it.
    ///
    /// Shapes: `counts` holds a u32 for each id; see [`TokenCounts::of_text`].
    ///
    /// # Errors
    ///
    /// [`crate::Error::Gpu`].
    pub fn new(device: &Device, record: &Buffer, counts: &Buffer) -> Result<TokenCounts> {
        let kernel = device.kernel(&["token_counts"], &[])?;
        Ok(TokenCounts { dispatch: kernel.dispatch(device, &[record, counts], [1, 1, 1])? })
    }

    /// The counts after `answer` to `prompt`, of a vocabulary of `vocab` tokens: 2 for each time that the answer has an id, and
    /// 1 more if the prompt has it.
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

    /// Records it for a round that commits `tokens` tokens at most.
    pub fn encode(&self, pass: &mut Pass, tokens: usize) {
        self.dispatch.encode(pass, Work::of(tokens, [1, 1], 12 * tokens, tokens));
    }
}
