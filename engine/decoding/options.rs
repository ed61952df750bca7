//! How a decoder works.

use super::sampling::SamplingOptions;
use crate::error::{Error, Result};

/// The longest draft.
pub const MOST_DRAFTS: usize = 16;

/// The longest context: beyond any model's, and small enough that no size computed from it overflows.
pub const MOST_CONTEXT: usize = 1 << 24;

/// Who proposes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Nobody: one token a round.
    #[default]
    Ar,
    /// An autoregressive draft, in K passes: vanilla speculative decoding.
    Vsd,
    /// A parallel draft, in one pass.
    Pard,
}

impl Method {
    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Method::Ar => "ar",
            Method::Vsd => "vsd",
            Method::Pard => "pard",
        }
    }
}

/// K: tokens proposed per round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drafts {
    /// As many every round, 0 to [`MOST_DRAFTS`]; 0 is AR.
    Fixed(usize),
    /// What promises the most tokens per second, round by round, by what passes cost on this device and by how often
    /// proposals were accepted; 0 where speculation does not pay.
    #[default]
    Auto,
}

impl Drafts {
    /// The longest draft there can be.
    pub fn most(self) -> usize {
        match self {
            Drafts::Fixed(drafts) => drafts,
            Drafts::Auto => MOST_DRAFTS,
        }
    }
}

impl std::fmt::Display for Drafts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Drafts::Fixed(drafts) => write!(f, "{drafts}"),
            Drafts::Auto => f.write_str("auto"),
        }
    }
}

/// How a decoder works. None of it but `sampling` changes the text.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderOptions {
    /// Who proposes.
    pub method: Method,
    /// How many tokens.
    pub drafts: Drafts,
    /// Tokens that prompt and answer may take together.
    pub context: usize,
    /// Whether a round is submitted before it is known what the last one committed. It hides the host's work, at the
    /// price of surplus rows for the draft. By default GPUs do and software adapters, where rows are dear, do not.
    pub run_ahead: Option<bool>,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
}

impl Default for DecoderOptions {
    fn default() -> DecoderOptions {
        DecoderOptions {
            method: Method::default(),
            drafts: Drafts::default(),
            context: 4096,
            run_ahead: None,
            sampling: SamplingOptions::default(),
        }
    }
}

impl DecoderOptions {
    /// The same with what follows from other fields filled in: without proposals the method is AR.
    ///
    /// Errors: [`Error::Option`] if K, the context or how tokens are chosen is out of range.
    pub(super) fn checked(mut self) -> Result<DecoderOptions> {
        if self.drafts.most() > MOST_DRAFTS {
            return Err(Error::Option {
                option: "draft length",
                reason: format!("{} is above the supported {MOST_DRAFTS}", self.drafts),
            });
        }
        if !(2..=MOST_CONTEXT).contains(&self.context) {
            let reason = format!("{} is not between 2 and {MOST_CONTEXT} tokens", self.context);
            return Err(Error::Option { option: "context", reason });
        }
        self.sampling.check()?;
        if self.drafts.most() == 0 || self.method == Method::Ar {
            self = DecoderOptions { method: Method::Ar, drafts: Drafts::Fixed(0), ..self };
        }
        Ok(self)
    }
}
