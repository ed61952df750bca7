//! Rounds of a session, and their reports.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::arguments::Shared;
use super::failure::Failure;
use pard::decoding::{
    Completion, FinishReason, Limits, MAX_DRAFTS, Method, Piece, SamplingParams, Sequence, Statistics, TokenLogprobs,
};
use pard::model::Model;

/// State used by one call at a time.
pub(super) struct Writer {
    pub model: Arc<Model>,
    sequence: Sequence,
    completion: Option<Completion>,
    /// The answer's text, and the zero byte that C wants at the end.
    pub text: Vec<u8>,
    /// The text of the last round, likewise.
    piece: Vec<u8>,
    /// Its tokens.
    tokens: Vec<u32>,
    /// Their log-probabilities, as C has them, and the lists they point to.
    logprobs: Vec<PardTokenLogprobs>,
    likeliest: Vec<PardLikelyToken>,
}

/// `pard_likely_token`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct PardLikelyToken {
    /// The token.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
}

/// `pard_token_logprobs`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PardTokenLogprobs {
    /// The token that was chosen.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// The likeliest tokens.
    pub top: *const PardLikelyToken,
    /// Number of the likeliest tokens.
    pub top_count: usize,
}

// SAFETY: it points into its own writer, and is handed out only while that is locked or as `pard.h` says.
unsafe impl Send for PardTokenLogprobs {}

/// `pard_round`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PardRound {
    /// Its size in bytes.
    pub size: usize,
    /// The text that became certain.
    pub text: *const c_char,
    /// Its bytes.
    pub text_length: usize,
    /// The tokens.
    pub tokens: *const u32,
    /// Number of tokens.
    pub token_count: usize,
    /// Proposals: K.
    pub proposed: usize,
    /// Number of accepted proposals.
    pub accepted: usize,
    /// Time that the round took.
    pub seconds: f64,
    /// Reason why the answer ended, or `PARD_WRITING`.
    pub finish: i32,
    /// The log-probabilities of the tokens, one for each.
    pub logprobs: *const PardTokenLogprobs,
    /// Number of log-probabilities: all or none.
    pub logprob_count: usize,
}

/// `pard_statistics`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PardStatistics {
    /// Its size in bytes.
    pub size: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub answer_tokens: usize,
    /// Tokens that rounds wrote.
    pub committed_tokens: usize,
    /// Rounds.
    pub rounds: usize,
    /// Tokens a round.
    pub tokens_per_round: f64,
    /// Time for the prompt.
    pub prefill_seconds: f64,
    /// Time for all rounds.
    pub decode_seconds: f64,
    /// Tokens of the answer per second of decoding.
    pub tokens_per_second: f64,
    /// Mean K.
    pub mean_drafts: f64,
    /// Proposals by position.
    pub proposed: [usize; MAX_DRAFTS],
    /// Those that were accepted.
    pub accepted: [usize; MAX_DRAFTS],
    /// The method.
    pub method: i32,
    /// Reason why the answer ended, or `PARD_WRITING`.
    pub finish: i32,
}

// SAFETY: it is `repr(C)`, begins with its size, and zeros are numbers and NULL.
unsafe impl Shared for PardRound {}
// SAFETY: as above.
unsafe impl Shared for PardStatistics {}

/// `pard_on_round`.
pub type PardOnRound = unsafe extern "C-unwind" fn(round: *const PardRound, user: *mut c_void) -> c_int;

fn finish_number(finish: Option<FinishReason>) -> i32 {
    match finish {
        None => 0,
        Some(FinishReason::Stop) => 1,
        Some(FinishReason::Length) => 2,
        Some(FinishReason::Context) => 3,
        Some(FinishReason::Cancelled) => 4,
        Some(FinishReason::Failed) => 5,
    }
}

fn method_number(method: Method) -> i32 {
    match method {
        Method::Ar => 1,
        Method::Vsd => 2,
        Method::Pard => 3,
        Method::Ngram => 4,
    }
}

impl Writer {
    pub fn new(model: Arc<Model>, sequence: Sequence) -> Writer {
        Writer {
            model,
            sequence,
            completion: None,
            text: vec![0],
            piece: vec![0],
            tokens: Vec::new(),
            logprobs: Vec::new(),
            likeliest: Vec::new(),
        }
    }

    pub fn forget(&mut self) {
        self.completion = None;
        self.text = vec![0];
        self.piece = vec![0];
    }

    pub fn start(
        &mut self,
        prompt: &[u32],
        limits: Limits,
        sampling: SamplingParams,
        cancelled: &AtomicBool,
    ) -> Result<(), Failure> {
        self.sequence.set_sampling(sampling)?;
        let is_cancelled = || cancelled.load(Ordering::Relaxed);
        self.sequence.start_while(prompt, &|| !is_cancelled())?;
        let context = self.sequence.options().context;
        let completion = self.completion.insert(Completion::new(&self.model.text, limits, prompt.len(), context));
        completion.hold_end(&mut self.sequence)?;
        if is_cancelled() {
            completion.end(FinishReason::Cancelled);
        }
        Ok(())
    }

    /// The reason why the answer ended, if it has. One that was never begun counts as cancelled.
    fn finish(&self) -> Option<FinishReason> {
        self.completion.as_ref().map_or(Some(FinishReason::Cancelled), Completion::finish_reason)
    }

    /// Runs one round, if the answer wants one.
    pub fn round(&mut self, cancelled: &AtomicBool) -> Result<PardRound, Failure> {
        let (mut piece, mut failed) = (Piece::default(), None);
        if let Some(completion) = self.completion.as_mut().filter(|completion| completion.finish_reason().is_none()) {
            if cancelled.load(Ordering::Relaxed) {
                piece.text = completion.end(FinishReason::Cancelled);
            } else {
                let sequence = &mut self.sequence;
                match sequence.round().err() {
                    None => piece = completion.take_round(sequence),
                    error => {
                        piece.text = completion.end(FinishReason::Failed);
                        failed = error;
                    }
                }
            }
        }
        let Piece { text, tokens, logprobs, round: statistics, .. } = piece;
        self.keep_logprobs(&logprobs);
        append(&mut self.text, &text);
        self.piece = vec![0];
        append(&mut self.piece, &text);
        self.tokens = tokens;
        if let Some(error) = failed {
            return Err(error.into());
        }
        Ok(PardRound {
            size: size_of::<PardRound>(),
            text: self.piece.as_ptr().cast(),
            text_length: text.len(),
            tokens: self.tokens.as_ptr(),
            token_count: self.tokens.len(),
            proposed: statistics.proposed,
            accepted: statistics.accepted,
            seconds: statistics.time.as_secs_f64(),
            finish: finish_number(self.finish()),
            logprobs: self.logprobs.as_ptr(),
            logprob_count: self.logprobs.len(),
        })
    }

    /// Keeps the log-probabilities of the last round's tokens where C callers find them.
    fn keep_logprobs(&mut self, of_round: &[TokenLogprobs]) {
        let pairs = of_round.iter().flat_map(|one| &one.top);
        self.likeliest = pairs.map(|&(token, logprob)| PardLikelyToken { token, logprob }).collect();
        let mut rest = &self.likeliest[..];
        self.logprobs.clear();
        for TokenLogprobs { token, logprob, top } in of_round {
            let (own, others) = rest.split_at(top.len());
            let (token, logprob, top) = (*token, *logprob, own.as_ptr());
            self.logprobs.push(PardTokenLogprobs { token, logprob, top, top_count: own.len() });
            rest = others;
        }
    }

    pub fn run(
        &mut self,
        cancelled: &AtomicBool,
        on_round: Option<PardOnRound>,
        user: *mut c_void,
    ) -> Result<(), Failure> {
        while self.finish().is_none() {
            let round = self.round(cancelled)?;
            // SAFETY: the caller has handed over a function of this type.
            let stop = on_round.is_some_and(|on_round| unsafe { on_round(&round, user) } != 0);
            if let Some(completion) = self.completion.as_mut().filter(|_| stop) {
                let text = completion.end(FinishReason::Cancelled);
                append(&mut self.text, &text);
            }
        }
        Ok(())
    }

    pub fn statistics(&self) -> PardStatistics {
        let mut counts = Statistics::default();
        let mut answer_tokens = 0;
        if let Some(completion) = &self.completion {
            counts.clone_from(self.sequence.statistics());
            answer_tokens = completion.output().len();
        }
        let padded = |counts: &[usize]| std::array::from_fn(|index| counts.get(index).copied().unwrap_or(0));
        let decode_seconds = counts.decode.as_secs_f64();
        PardStatistics {
            size: size_of::<PardStatistics>(),
            prompt_tokens: counts.prompt_tokens,
            answer_tokens,
            committed_tokens: counts.committed_tokens,
            rounds: counts.rounds,
            tokens_per_round: counts.tokens_per_round(),
            prefill_seconds: counts.prefill.as_secs_f64(),
            decode_seconds,
            tokens_per_second: answer_tokens as f64 / decode_seconds.max(1e-9),
            mean_drafts: counts.mean_drafts(),
            proposed: padded(&counts.proposed),
            accepted: padded(&counts.accepted),
            method: method_number(self.sequence.options().method),
            finish: finish_number(self.finish()),
        }
    }
}

/// Puts `text` before the zero byte.
fn append(to: &mut Vec<u8>, text: &str) {
    to.pop();
    to.extend_from_slice(text.as_bytes());
    to.push(0);
}
