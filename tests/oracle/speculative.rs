//! Speculative decoding on the host, over toy models whose "cache" is the tokens they were fed.
//! It states the rule that the engine follows on the GPU: what each forward is fed, what is kept, what is forgotten.
//! A cache of lengths alone was rejected: with the tokens in it, a stale row is seen and not merely counted.

use super::accept::accept;

/// A token id.
pub type Token = u32;

/// The greedy choice after some tokens.
pub type Next<'a> = Box<dyn Fn(&[Token]) -> Token + 'a>;

/// A model that is a function from the tokens so far to the next one.
pub struct ToyModel<'a> {
    next: Next<'a>,
    /// The tokens whose rows the cache holds.
    pub cache: Vec<Token>,
    /// Rows of each forward since the prefill.
    pub forward_rows: Vec<usize>,
}

impl<'a> ToyModel<'a> {
    /// A model with an empty cache.
    pub fn new(next: impl Fn(&[Token]) -> Token + 'a) -> Self {
        Self { next: Box::new(next), cache: Vec::new(), forward_rows: Vec::new() }
    }

    /// Appends `input` to the cache; returns the choices of its last `outputs` rows.
    fn forward(&mut self, input: &[Token], outputs: usize) -> Vec<Token> {
        self.forward_rows.push(input.len());
        let first_output = input.len() - outputs;
        let mut choices = Vec::new();
        for (row, &token) in input.iter().enumerate() {
            self.cache.push(token);
            if row >= first_output {
                choices.push((self.next)(&self.cache));
            }
        }
        choices
    }
}

/// Source of proposals.
pub enum Proposer<'a> {
    /// None: one token per forward (AR).
    None,
    /// A draft that is asked token by token (VSD).
    Chain(ToyModel<'a>),
    /// A draft that is asked once, with masks (PARD).
    Parallel {
        /// The draft.
        draft: ToyModel<'a>,
        /// Its mask token.
        mask: Token,
    },
}

/// Decoding in progress.
pub struct ToyDecoder<'a> {
    /// The model whose greedy text is wanted.
    pub target: ToyModel<'a>,
    /// Source of the proposals.
    pub proposer: Proposer<'a>,
    draft_len: usize,
    /// All committed tokens, the prompt included.
    pub tokens: Vec<Token>,
}

impl<'a> ToyDecoder<'a> {
    /// Prefills both caches with all prompt tokens but the last, which is a row of the first round.
    pub fn new(mut target: ToyModel<'a>, mut proposer: Proposer<'a>, draft_len: usize, prompt: &[Token]) -> Self {
        let known = &prompt[..prompt.len() - 1];
        target.cache.extend(known);
        if let Proposer::Chain(draft) | Proposer::Parallel { draft, .. } = &mut proposer {
            draft.cache.extend(known);
        }
        let draft_len = if matches!(proposer, Proposer::None) { 0 } else { draft_len };
        Self { target, proposer, draft_len, tokens: prompt.to_vec() }
    }

    /// Drafts, verifies and commits one round; returns the 1..=K+1 tokens it added.
    pub fn round(&mut self) -> Vec<Token> {
        let proposal = self.propose();
        let choices = self.verify(&proposal);
        let kept = accept(&proposal, &choices);
        self.commit(&kept);
        kept
    }

    fn propose(&mut self) -> Vec<Token> {
        match &mut self.proposer {
            Proposer::None => Vec::new(),
            Proposer::Chain(draft) => {
                let mut proposal = draft.forward(&self.tokens[draft.cache.len()..], 1);
                while proposal.len() < self.draft_len {
                    proposal.extend(draft.forward(&[proposal[proposal.len() - 1]], 1));
                }
                proposal
            }
            Proposer::Parallel { draft, mask } => {
                let mut input = self.tokens[draft.cache.len()..].to_vec();
                input.resize(input.len() + self.draft_len - 1, *mask);
                let proposal = draft.forward(&input, self.draft_len);
                draft.cache.truncate(self.tokens.len());
                proposal
            }
        }
    }

    fn verify(&mut self, proposal: &[Token]) -> Vec<Token> {
        let input = [&self.tokens[self.target.cache.len()..], proposal].concat();
        self.target.forward(&input, proposal.len() + 1)
    }

    fn commit(&mut self, kept: &[Token]) {
        self.tokens.extend_from_slice(kept);
        // The last token is always new to the models: it is a row of the next round.
        self.target.cache.truncate(self.tokens.len() - 1);
        if let Proposer::Chain(draft) = &mut self.proposer {
            draft.cache.truncate(self.tokens.len() - 1);
        }
    }
}
