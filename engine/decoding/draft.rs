//! The model that proposes.

use std::sync::Arc;

use crate::checkpoint::config::Config;
use crate::error::{Error, Result};
use crate::model::{Model, Weights};
use crate::text::Tokenizer;

/// A draft: its weights, and its mask token if it is a parallel one.
#[derive(Clone)]
pub struct Draft {
    /// Name used in messages.
    pub name: String,
    /// The weights.
    pub model: Arc<Weights>,
    /// Mask token, which a parallel draft reads in place of tokens not yet known.
    pub mask: Option<u32>,
}

impl Draft {
    /// `draft` as the draft of `target`. Its mask token is `mask`, or else the one its configuration names.
    ///
    /// # Errors
    ///
    /// Those of [`Draft::check`].
    pub fn new(draft: &Model, target: &Model, mask: Option<u32>) -> Result<Draft> {
        let mask = Draft::check(draft.weights.config(), &draft.text.tokenizer, &target.text.tokenizer, mask)?;
        Ok(Draft { name: draft.name().to_owned(), model: draft.weights.clone(), mask })
    }

    /// Checks, from the files alone and before anything is uploaded, that a draft can draft for a model whose tokenizer
    /// is `target`, and returns its mask token.
    ///
    /// # Errors
    ///
    /// [`Error::TokenizerMismatch`] if the two do not share a token language; [`Error::TokenRange`] if the
    /// mask lies outside the draft's vocabulary.
    pub fn check(config: &Config, tokenizer: &Tokenizer, target: &Tokenizer, mask: Option<u32>) -> Result<Option<u32>> {
        let mask = mask.or(config.mask_token);
        if let Some(id) = mask.filter(|&id| id as usize >= config.vocab_size && !config.mask_has_row(id)) {
            return Err(Error::TokenRange { what: "mask token", id, vocab: config.vocab_size });
        }
        tokenizer.check_target(target, mask)?;
        Ok(mask)
    }
}
