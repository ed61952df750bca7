//! A draft without embeddings of its own: its embedding table and its head are its target's, on the device and in memory
//! only once. Its files hold what was trained, the layers, the final norm and the mask token's row; and, for a faster head,
//! the ids of a reduced output vocabulary.

use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::Config;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device};
use crate::ops::{MaskRow, Tensor};

/// The tensor that holds the mask token's row of the embedding, `[hidden]`.
pub const MASK_EMBEDDING: &str = "pard.mask_embedding";
/// The tensor that holds the ids of the output vocabulary, ascending, if it is a reduced one: `[N]` of I32 or U32.
pub const VOCABULARY: &str = "pard.vocabulary";

/// Replacement for the embeddings of such a draft.
pub(super) struct TargetEmbeddings {
    pub mask: u32,
    pub mask_row: Tensor,
    /// `true` if embedding and head are copies, since the target is on another device.
    pub is_copy: bool,
    pub vocabulary: Option<Vocabulary>,
}

/// The tokens that a head has rows for.
pub(super) struct Vocabulary {
    ids: Vec<u32>,
    pub buffer: Buffer,
}

impl TargetEmbeddings {
    /// The row that stands in for the table's.
    pub fn mask_row(&self) -> MaskRow<'_> {
        MaskRow { id: self.mask, row: &self.mask_row }
    }
}

impl Vocabulary {
    pub fn new(device: &Device, ids: Vec<u32>) -> Result<Vocabulary> {
        Ok(Vocabulary { buffer: Buffer::with_values(device, "vocabulary", &ids)?, ids })
    }

    /// The number of its tokens with ids below `limit`; they are its first.
    pub fn below(&self, limit: usize) -> usize {
        self.ids.partition_point(|&id| (id as usize) < limit)
    }
}

/// The ids of the reduced output vocabulary in `checkpoint`, if it has one.
///
/// # Errors
///
/// [`Error::Damaged`] if they are none, do not ascend, or lie outside the embedding; those of
/// [`Checkpoint::read_ids`].
pub fn vocabulary(config: &Config, checkpoint: &dyn Checkpoint) -> Result<Option<Vec<u32>>> {
    let Some(ids) = checkpoint.read_ids(VOCABULARY)? else { return Ok(None) };
    let fault = |reason: String| {
        Err(Error::Damaged { path: checkpoint.path().to_owned(), reason: format!("{VOCABULARY}: {reason}") })
    };
    if ids.is_empty() {
        return fault("it names no token".to_owned());
    }
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] >= pair[1]) {
        return fault(format!("{} follows {}; its ids have to ascend", pair[1], pair[0]));
    }
    // The largest comes last.
    match ids.last() {
        Some(&id) if id as usize >= config.vocab_size => {
            fault(format!("{id} is outside the vocabulary of {} tokens", config.vocab_size))
        }
        _ => Ok(Some(ids)),
    }
}

/// Checks that `target` has embeddings that a draft of `config` can use. `checkpoint` names its files.
///
/// # Errors
///
/// [`Error::Config`].
pub fn check_target(config: &Config, checkpoint: &dyn Checkpoint, target: &Config) -> Result<()> {
    let fault = |field: &str, reason: String| {
        Err(Error::Config { path: checkpoint.path().to_owned(), field: field.to_owned(), reason })
    };
    for (field, got, expected) in
        [("hidden_size", config.hidden_size, target.hidden_size), ("vocab_size", config.vocab_size, target.vocab_size)]
    {
        if config.shared_embeddings && got != expected {
            return fault(field, format!("{got}, but the target's, whose embeddings it uses, is {expected}"));
        }
    }
    Ok(())
}

/// The reason why a draft of `config` cannot read the states of a target of `target`, if it reads states and there is one.
pub fn unfit(config: &Config, target: &Config) -> Option<String> {
    let read = config.target_layers.as_ref()?;
    if read.hidden_size != target.hidden_size {
        return Some(format!(
            "{} is made for states of {} values, and the target's hidden size is {}",
            read.width_key(),
            read.hidden_size,
            target.hidden_size
        ));
    }
    let state = read.states(target.layers).err()?;
    Some(format!("{} names {state}, and the target has {} layers", read.key(), target.layers))
}

/// A notice that a draft does not read its target's states, for `reason`.
pub fn independence(reason: &str) -> String {
    format!("it drafts without its target's states, with fewer tokens per round: {reason}")
}
