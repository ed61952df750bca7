//! The model that proposes.

use std::sync::Arc;

use super::options::Method;
use crate::checkpoint::config::Config;
use crate::error::{Error, Result};
use crate::model::{LoadOptions, Model, PassCost, Tuning, Weights};
use crate::text::Tokenizer;

/// A draft: its weights, and its mask token if it is a parallel one.
#[derive(Clone)]
#[non_exhaustive]
pub struct Draft {
    /// Name used in messages.
    pub name: String,
    /// The weights.
    pub model: Arc<Weights>,
    /// Mask token, which a parallel draft reads in place of tokens not yet known.
    pub mask: Option<u32>,
    /// Costs of its passes, if it was measured.
    pub cost: Option<PassCost>,
}

impl Draft {
    /// Finds the draft `name` as [`Model::load`] does, and uploads it to the device of `target`.
    ///
    /// # Errors
    ///
    /// Those of [`Model::load_draft`] and [`Draft::new`].
    pub fn load(target: &Model, name: &str, options: LoadOptions) -> Result<Draft> {
        let draft = Model::load_draft(target.weights.device(), name, target, options)?;
        Draft::new(&draft, target, None)
    }

    /// A draft of weights alone, whose mask token, if it has one, is `mask`.
    pub fn from_weights(name: impl Into<String>, model: Arc<Weights>, mask: Option<u32>) -> Draft {
        Draft { name: name.into(), model, mask, cost: None }
    }

    /// The best method that it supports: parallel drafting if it has a mask token.
    pub fn method(&self) -> Method {
        if self.mask.is_some() { Method::Pard } else { Method::Vsd }
    }

    /// `draft` as the draft of `target`. Its mask token is `mask`, or else the one its configuration names.
    ///
    /// # Errors
    ///
    /// Those of [`Draft::check`].
    pub fn new(draft: &Model, target: &Model, mask: Option<u32>) -> Result<Draft> {
        let mask = Draft::check(draft.weights.config(), &draft.text.tokenizer, &target.text.tokenizer, mask)?;
        let cost = draft.tuning.as_ref().map(Tuning::pass_cost);
        Ok(Draft { name: draft.name().to_owned(), model: draft.weights.clone(), mask, cost })
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
