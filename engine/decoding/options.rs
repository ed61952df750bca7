//! Options of engines and sequences.

use super::ngram::NgramOptions;
use super::sampling_params::{AcceptanceRule, SamplingParams};
use crate::error::{Error, OptionName, Result};

/// The longest draft.
pub const MAX_DRAFTS: usize = 16;

/// The longest context: beyond any model's, and small enough that no size computed from it overflows.
pub const MAX_CONTEXT: usize = 1 << 24;

/// Method of proposing tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// No proposals: one token a round.
    #[default]
    Ar,
    /// An autoregressive draft, in K passes: vanilla speculative decoding.
    Vsd,
    /// A parallel draft, in one pass.
    Pard,
    /// No model: the tokens that followed an earlier occurrence of the newest ones, in the prompt or the answer.
    Ngram,
}

impl Method {
    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Method::Ar => "ar",
            Method::Vsd => "vsd",
            Method::Pard => "pard",
            Method::Ngram => "ngram",
        }
    }
}

/// K: tokens proposed per round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DraftLength {
    /// As many every round, 0 to [`MAX_DRAFTS`]; 0 is AR.
    Fixed(usize),
    /// The K with the highest estimate of tokens per second, chosen round by round from the costs of passes on this
    /// device and the acceptance rate; 0 where speculation does not pay.
    #[default]
    Auto,
}

impl DraftLength {
    /// K, which `choose` says where it is not fixed.
    pub(super) fn or_else(self, choose: impl FnOnce() -> usize) -> usize {
        match self {
            DraftLength::Fixed(drafts) => drafts,
            DraftLength::Auto => choose(),
        }
    }

    /// The longest draft there can be.
    pub fn most(self) -> usize {
        self.or_else(|| MAX_DRAFTS)
    }
}

impl std::fmt::Display for DraftLength {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DraftLength::Fixed(drafts) => write!(f, "{drafts}"),
            DraftLength::Auto => f.write_str("auto"),
        }
    }
}

/// Options of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Tokens that prompt and answer of a sequence may take together. Their keys and values are the engine's memory.
    pub context: usize,
    /// Sequences at once, at most.
    pub sequences: usize,
}

crate::builder::setters! {
    EngineOptions {
        context: usize,
        sequences: usize,
    }
}

impl Default for EngineOptions {
    /// One sequence of 4096 tokens.
    fn default() -> EngineOptions {
        EngineOptions { context: 4096, sequences: 1 }
    }
}

/// Options of a sequence. Only `sampling` and `acceptance` change the text.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SequenceOptions {
    /// Method of proposing tokens.
    pub method: Method,
    /// Draft length: tokens proposed per round.
    pub drafts: DraftLength,
    /// Tokens that prompt and answer may take together.
    pub context: usize,
    /// `true` to submit a round before the tokens of the last one are known. This hides the host's work at the cost of
    /// surplus rows for the draft. By default `true` on GPUs and `false` on software adapters, where rows are expensive.
    /// With n-gram lookup, which needs the tokens, no round runs ahead.
    pub run_ahead: Option<bool>,
    /// Acceptance rule for a draft model's proposals, where tokens are drawn.
    pub acceptance: AcceptanceRule,
    /// Lengths of the n-grams looked up by [`Method::Ngram`], or in a draft's place.
    pub ngram: NgramOptions,
    /// `true` to let n-grams propose in a draft's place, in rounds where their estimate is higher; a match then has at
    /// least two tokens. This costs nothing, but no round runs ahead.
    pub with_ngrams: bool,
    /// Sampling parameters.
    pub sampling: SamplingParams,
}

crate::builder::setters! {
    SequenceOptions {
        method: Method,
        drafts: DraftLength,
        context: usize,
        run_ahead: Option<bool>,
        acceptance: AcceptanceRule,
        ngram: NgramOptions,
        with_ngrams: bool,
        sampling: SamplingParams,
    }
}

impl Default for SequenceOptions {
    fn default() -> SequenceOptions {
        SequenceOptions {
            method: Method::default(),
            drafts: DraftLength::default(),
            context: 4096,
            run_ahead: None,
            acceptance: AcceptanceRule::default(),
            ngram: NgramOptions::default(),
            with_ngrams: false,
            sampling: SamplingParams::default(),
        }
    }
}

impl SequenceOptions {
    /// Name of the proposers in reports: the method, and `+ngram` where n-grams may take its place.
    pub fn proposers(&self) -> String {
        format!("{}{}", self.method.name(), if self.with_ngrams { "+ngram" } else { "" })
    }

    /// Checks the options as far as possible without the models.
    ///
    /// # Errors
    ///
    /// [`Error::Option`], which names the option that is out of range.
    pub fn check(&self) -> Result<()> {
        self.clone().checked().map(drop)
    }

    /// Checks that the draft may be on another device than the target.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if proposals are accepted by chances, which stay where the draft is.
    pub(super) fn check_crossing(&self) -> Result<()> {
        if self.acceptance == AcceptanceRule::Rejection && self.sampling.temperature > 0.0 {
            let reason = "rejection compares all chances of draft and target, which are on two devices; use noise, or \
                          one device"
                .to_owned();
            return Err(Error::Option { option: OptionName::Acceptance, reason });
        }
        Ok(())
    }

    /// The same with dependent fields filled in: without proposals the method is AR.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if K, the context, the n-gram or how tokens are chosen is out of range, or if no model proposes
    /// what is to be accepted by its chances.
    pub(super) fn checked(mut self) -> Result<SequenceOptions> {
        if self.drafts.most() > MAX_DRAFTS {
            return Err(Error::Option {
                option: OptionName::Drafts,
                reason: format!("{} is above the supported {MAX_DRAFTS}", self.drafts),
            });
        }
        if !(2..=MAX_CONTEXT).contains(&self.context) {
            let reason = format!("{} is not between 2 and {MAX_CONTEXT} tokens", self.context);
            return Err(Error::Option { option: OptionName::Context, reason });
        }
        self.sampling.check()?;
        self.ngram.check()?;
        if (self.method == Method::Ngram || self.with_ngrams) && self.acceptance == AcceptanceRule::Rejection {
            let reason = "ngram proposes tokens without chances to accept them by; use noise".to_owned();
            return Err(Error::Option { option: OptionName::Acceptance, reason });
        }
        if self.drafts.most() == 0 || self.method == Method::Ar {
            self = SequenceOptions { method: Method::Ar, drafts: DraftLength::Fixed(0), ..self };
        }
        if matches!(self.method, Method::Ar | Method::Ngram) {
            self.with_ngrams = false;
        }
        Ok(self)
    }
}

/// The cache rows that a context of `context` tokens takes: a round looks at most K + 1 rows past the committed
/// tokens, and a draft's window is 2 K rows.
pub fn cache_positions(context: usize) -> usize {
    context + 2 * MAX_DRAFTS
}
