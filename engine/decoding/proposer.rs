//! Sources of proposals. A new one that knows its tokens on the host is a variant of [`Proposer`] with a line in each of its
//! methods, and a [`Method`] by which it is asked for; what a draft model proposes comes about on the device.

use super::ngram::NgramOptions;
use super::options::Method;
use crate::ops::ProposerKind;

/// Source of the proposals of a sequence's round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposer {
    /// Proposes nothing: plain decoding.
    Nobody,
    /// Tokens that followed an earlier occurrence of the newest ones.
    Ngram(NgramOptions),
    /// Tokens that the answer's grammar forces, in the place of another proposer.
    Grammar,
    /// A draft model that makes all proposals in one pass.
    ParallelDraft,
    /// A draft model that makes each proposal in a pass of its own.
    SerialDraft,
}

impl Proposer {
    /// The proposer of `method`.
    pub fn of(method: Method, ngram: NgramOptions) -> Proposer {
        match method {
            Method::Ar => Proposer::Nobody,
            Method::Ngram => Proposer::Ngram(ngram),
            Method::Pard => Proposer::ParallelDraft,
            Method::Vsd => Proposer::SerialDraft,
        }
    }

    /// The same for the device.
    pub fn kind(self) -> ProposerKind {
        match self {
            Proposer::Nobody | Proposer::Ngram(_) | Proposer::Grammar => ProposerKind::LookedUp,
            Proposer::ParallelDraft => ProposerKind::Parallel,
            Proposer::SerialDraft => ProposerKind::Serial,
        }
    }

    /// Returns `true` if a draft model proposes.
    pub fn is_model(self) -> bool {
        self.kind() != ProposerKind::LookedUp
    }

    /// Returns `true` if it needs the committed tokens to propose, so that no round can run ahead of them.
    pub fn needs_tokens(self) -> bool {
        match self {
            Proposer::Ngram(_) | Proposer::Grammar => true,
            Proposer::Nobody | Proposer::ParallelDraft | Proposer::SerialDraft => false,
        }
    }

    /// At most `most` proposals after `tokens`, where the host makes them.
    pub fn look_up(self, tokens: &[u32], most: usize) -> Vec<u32> {
        match self {
            Proposer::Ngram(ngram) => ngram.propose(tokens, most),
            Proposer::Nobody | Proposer::Grammar | Proposer::ParallelDraft | Proposer::SerialDraft => Vec::new(),
        }
    }

    /// Rows and outputs of the pass `pass_index` of a draft model that makes `drafts` proposals after reading `unread`
    /// committed tokens; none if it has no such pass.
    pub fn draft_pass(self, pass_index: usize, drafts: usize, unread: usize) -> Option<(usize, usize)> {
        match self {
            _ if pass_index >= drafts => None,
            Proposer::Nobody | Proposer::Ngram(_) | Proposer::Grammar => None,
            Proposer::ParallelDraft => (pass_index == 0).then_some((unread + drafts - 1, drafts)),
            Proposer::SerialDraft => Some((if pass_index == 0 { unread } else { 1 }, 1)),
        }
    }
}
