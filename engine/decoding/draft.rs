//! The model that proposes.

use std::sync::Arc;

use super::options::Method;
use crate::checkpoint::config::Config;
use crate::error::{Error, Result};
use crate::model::{LoadOptions, Model, PassCost, Weights};
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
    /// Notices about how it fits its target.
    pub notices: Vec<String>,
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
        Draft { name: name.into(), model, mask, cost: None, notices: Vec::new() }
    }

    /// The best method that it supports: parallel drafting if it has a mask token.
    pub fn method(&self) -> Method {
        if self.mask.is_some() { Method::Pard } else { Method::Vsd }
    }

    /// `draft` as the draft of `target`. Its mask token is `mask`, or else the one its configuration names.
    ///
    /// # Errors
    ///
    /// Those of [`Draft::mask`] and [`Draft::check`].
    pub fn new(draft: &Model, target: &Model, mask: Option<u32>) -> Result<Draft> {
        let config = draft.weights.config();
        let mask = Draft::mask(config, mask)?;
        let notices = Draft::check(&draft.text.tokenizer, &target.text.tokenizer, mask)?;
        let cost = draft.pass_cost();
        Ok(Draft { name: draft.name().to_owned(), model: draft.weights.clone(), mask, cost, notices })
    }

    /// The mask token of a draft of `config`: `mask`, or else the one that it names.
    ///
    /// # Errors
    ///
    /// [`Error::TokenRange`] if it lies outside the draft's vocabulary.
    pub fn mask(config: &Config, mask: Option<u32>) -> Result<Option<u32>> {
        let mask = mask.or(config.mask_token);
        match mask.filter(|&id| id as usize >= config.vocab_size && !config.mask_has_row(id)) {
            Some(id) => Err(Error::TokenRange { what: "mask token", id, vocab: config.vocab_size }),
            None => Ok(mask),
        }
    }

    /// Checks, before anything is uploaded, that a draft whose tokenizer is `tokenizer` can draft for a model whose
    /// tokenizer is `target`. Gives a notice if some special tokens have other names.
    ///
    /// # Errors
    ///
    /// [`Error::TokenizerMismatch`] if the two do not share a token language.
    pub fn check(tokenizer: &Tokenizer, target: &Tokenizer, mask: Option<u32>) -> Result<Vec<String>> {
        let renamed = tokenizer.check_target(target, mask)?;
        let notice = renamed.first().map(|(id, draft, target)| {
            format!(
                "{} special tokens have other names than the target's, the first of them {id}: {draft:?}, and {target:?} \
                 there; they are taken for the same",
                renamed.len()
            )
        });
        Ok(notice.into_iter().collect())
    }
}
