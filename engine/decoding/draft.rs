//! The model that proposes.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::{Model, Transformer};

/// A draft: its weights, and its mask token if it is a parallel one.
#[derive(Clone)]
pub struct Draft {
    /// What to call it in messages.
    pub name: String,
    /// The weights.
    pub model: Arc<Transformer>,
    /// What a parallel draft reads in place of tokens that are not known yet.
    pub mask: Option<u32>,
}

impl Draft {
    /// `draft` as the draft of `target`. Its mask token is `mask`, or else the one its configuration names.
    ///
    /// **Errors**: [`Error::TokenizerMismatch`] if the two do not share a token language; [`Error::TokenRange`] if the
    /// mask lies outside the draft's vocabulary.
    pub fn new(draft: &Model, target: &Model, mask: Option<u32>) -> Result<Draft> {
        let config = draft.transformer.config();
        let mask = mask.or(config.mask_token);
        if let Some(id) = mask.filter(|&id| id as usize >= config.vocab_size) {
            return Err(Error::TokenRange { what: "mask token", id, vocab: config.vocab_size });
        }
        draft.tokenizer.check_target(&target.tokenizer, mask)?;
        Ok(Draft { name: draft.name.clone(), model: draft.transformer.clone(), mask })
    }
}
