//! `pard_session`: a sequence, and the answer that it writes.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use super::arguments::{self, Shared};
use super::choice;
use super::failure::{Failure, PardError, PardStatus, free, give, guard};
use super::model::{PardDraft, PardModel};
use super::tokens::{PardMessage, chat_tokens};
use super::writer::{PardOnRound, PardRound, PardStatistics, Writer};
use pard::decoding::{
    AcceptanceRule, DraftLength, Engine, EngineOptions, Limits, MAX_DRAFTS, Method, NgramOptions, SamplingParams,
    SequenceOptions,
};
use pard::model::Model;
use pard::text::Grammar;

/// `pard_session`: one sequence.
pub struct PardSession {
    writer: Mutex<Writer>,
    cancelled: AtomicBool,
}

/// `pard_session_options`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PardSessionOptions {
    /// Its size in bytes.
    pub size: usize,
    /// Method of proposing tokens.
    pub method: i32,
    /// K.
    pub drafts: i32,
    /// Tokens that prompt and answer may take together.
    pub context: usize,
    /// Running rounds ahead: `PARD_DEFAULT`, `PARD_ON` or `PARD_OFF`.
    pub run_ahead: i32,
    /// Acceptance rule.
    pub acceptance: i32,
    /// The most tokens that are looked up.
    pub ngram_longest: usize,
    /// The fewest.
    pub ngram_shortest: usize,
    /// N-grams in a draft's place: `PARD_DEFAULT`, `PARD_ON` or `PARD_OFF`.
    pub with_ngrams: i32,
}

/// `pard_answer_options`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PardAnswerOptions {
    /// Its size in bytes.
    pub size: usize,
    /// Tokens of the answer.
    pub max_tokens: usize,
    /// Texts that end it.
    pub stop: *const *const c_char,
    /// Number of stop texts.
    pub stop_count: usize,
    /// Thinking before the answer: `PARD_DEFAULT`, `PARD_ON` or `PARD_OFF`.
    pub thinking: i32,
    /// Tokens are drawn from softmax(logits / temperature).
    pub temperature: f32,
    /// Names the draws.
    pub seed: u64,
    /// Draws from this many of the likeliest tokens.
    pub top_k: usize,
    /// Draws from the likeliest tokens with this share of the probability; 0 is 1.
    pub top_p: f32,
    /// Draws from tokens with this share of the likeliest one's probability.
    pub min_p: f32,
    /// Penalty of tokens in prompt and answer; 0 is 1.
    pub repetition_penalty: f32,
    /// Penalty of tokens in the answer.
    pub presence_penalty: f32,
    /// Penalty of tokens in the answer, per occurrence.
    pub frequency_penalty: f32,
    /// Biases added to tokens' logits.
    pub logit_bias: *const PardTokenBias,
    /// Number of biases.
    pub logit_bias_count: usize,
    /// Tokens that are never chosen.
    pub banned: *const u32,
    /// Number of banned tokens.
    pub banned_count: usize,
    /// Reporting of log-probabilities: `PARD_DEFAULT`, `PARD_ON` or `PARD_OFF`.
    pub logprobs: i32,
    /// Number of the likeliest tokens reported with them.
    pub top_logprobs: usize,
    /// Schema of the JSON that the answer is.
    pub json_schema: *const c_char,
    /// Regular expression that matches the answer.
    pub regex: *const c_char,
    /// Grammar of the answer.
    pub grammar: *const c_char,
    /// Texts of which the answer is one.
    pub choices: *const *const c_char,
    /// Number of these texts.
    pub choice_count: usize,
    /// Tokens of the answer at least.
    pub min_tokens: usize,
}

/// `pard_token_bias`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PardTokenBias {
    /// The token.
    pub token: u32,
    /// Bias added to its logit.
    pub bias: f32,
}

// SAFETY: they are `repr(C)`, begin with their size, and zeros are numbers and NULL.
unsafe impl Shared for PardSessionOptions {}
// SAFETY: as above.
unsafe impl Shared for PardAnswerOptions {}
/// Default length of an answer, and the most that a context has by default.
const DEFAULT_MAX_TOKENS: usize = 256;
const DEFAULT_CONTEXT: usize = 4096;

impl PardSessionOptions {
    fn sequence_options(&self, model: &Model, draft: Option<&PardDraft>) -> Result<SequenceOptions, Failure> {
        let method = match (self.method, draft) {
            (0 | 1, None) | (1, Some(_)) => Method::Ar,
            (0, Some(draft)) => draft.draft.method(),
            (2, _) => Method::Vsd,
            (3, _) => Method::Pard,
            (4, _) => Method::Ngram,
            (other, _) => return Err(Failure::argument(format!("method is {other}, which means nothing"))),
        };
        let drafts = match self.drafts {
            0 => DraftLength::Auto,
            drafts => DraftLength::Fixed(usize::try_from(drafts).map_err(|_| {
                Failure::argument(format!("drafts is {drafts}; it must be 1 to {MAX_DRAFTS}, or 0 to let it be chosen"))
            })?),
        };
        let context = match self.context {
            0 => model.weights.config().context.min(DEFAULT_CONTEXT),
            context => context,
        };
        let mut options = SequenceOptions::default().method(method).drafts(drafts).context(context);
        options.run_ahead = choice("run_ahead", self.run_ahead)?;
        options.acceptance = match self.acceptance {
            0 => AcceptanceRule::Noise,
            1 => AcceptanceRule::Rejection,
            other => return Err(Failure::argument(format!("acceptance is {other}, which means nothing"))),
        };
        let usual = options.ngram;
        let or_usual = |asked: usize, usual: usize| if asked == 0 { usual } else { asked };
        let longest = or_usual(self.ngram_longest, usual.longest.max(self.ngram_shortest));
        let shortest = or_usual(self.ngram_shortest, usual.shortest);
        options.ngram = NgramOptions::default().longest(longest).shortest(shortest);
        options.with_ngrams = choice("with_ngrams", self.with_ngrams)?.unwrap_or(false);
        Ok(options)
    }
}

impl PardAnswerOptions {
    unsafe fn limits(&self) -> Result<Limits, Failure> {
        // SAFETY: the pointers are what the manual asks for; so in all of this module.
        let stop = unsafe { arguments::list(self.stop, self.stop_count, "stop") }?.iter();
        // SAFETY: as above.
        let stop = stop.map(|&text| unsafe { arguments::text(text, "a stop text") }.map(str::to_owned));
        let max_tokens = if self.max_tokens == 0 { DEFAULT_MAX_TOKENS } else { self.max_tokens };
        let limits = Limits::default().max_tokens(max_tokens).min_tokens(self.min_tokens);
        Ok(limits.stop(stop.collect::<Result<_, Failure>>()?))
    }
}

impl PardAnswerOptions {
    unsafe fn sampling(&self) -> Result<SamplingParams, Failure> {
        // SAFETY: as above.
        let (biases, banned) = unsafe {
            let biases = arguments::list(self.logit_bias, self.logit_bias_count, "logit_bias")?;
            (biases, arguments::list(self.banned, self.banned_count, "banned")?)
        };
        let or_one = |value: f32| if value == 0.0 { 1.0 } else { value };
        let asks_for_logprobs = choice("logprobs", self.logprobs)?.unwrap_or(self.top_logprobs > 0);
        Ok(SamplingParams::default()
            .temperature(self.temperature)
            .seed(self.seed)
            .top_k(self.top_k)
            .top_p(or_one(self.top_p))
            .min_p(self.min_p)
            .repetition_penalty(or_one(self.repetition_penalty))
            .presence_penalty(self.presence_penalty)
            .frequency_penalty(self.frequency_penalty)
            .logit_bias(biases.iter().map(|one| (one.token, one.bias)).collect())
            .banned(banned.to_vec())
            // SAFETY: as above.
            .grammar(unsafe { self.grammar() }?)
            .top_logprobs(asks_for_logprobs.then_some(self.top_logprobs)))
    }

    unsafe fn grammar(&self) -> Result<Option<Grammar>, Failure> {
        // SAFETY: as above.
        let (texts, choices) = unsafe {
            let text = |text, name| Ok::<_, Failure>(arguments::optional_text(text, name)?.map(str::to_owned));
            let texts =
                [text(self.json_schema, "json_schema")?, text(self.regex, "regex")?, text(self.grammar, "grammar")?];
            let choices = arguments::list(self.choices, self.choice_count, "choices")?;
            let choices: Result<Vec<String>, Failure> =
                choices.iter().map(|&choice| arguments::text(choice, "a choice").map(str::to_owned)).collect();
            (texts, choices?)
        };
        let [schema, regex, lark] = texts;
        let choices = (!choices.is_empty()).then_some(Grammar::Choice(choices));
        let all = [schema.map(Grammar::JsonSchema), regex.map(Grammar::Regex), lark.map(Grammar::Lark), choices];
        let mut all = all.into_iter().flatten();
        match (all.next(), all.next()) {
            (grammar, None) => Ok(grammar),
            _ => Err(Failure::argument("json_schema, regex, grammar and choices go one at a time".to_owned())),
        }
    }
}

impl PardSession {
    /// The session for one call.
    fn writer(&self) -> Result<MutexGuard<'_, Writer>, Failure> {
        match self.writer.try_lock() {
            Ok(writer) => Ok(writer),
            // A callback panicked, between rounds.
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Failure::busy()),
        }
    }

    /// Begins an answer to the prompt that `tokens` gives.
    unsafe fn start(
        &self,
        options: *const PardAnswerOptions,
        tokens: impl FnOnce(&Model, &PardAnswerOptions) -> Result<Vec<u32>, Failure>,
    ) -> Result<(), Failure> {
        let mut writer = self.writer()?;
        self.cancelled.store(false, Ordering::Relaxed);
        writer.forget();
        // SAFETY: as above.
        let (options, limits, sampling) = unsafe {
            let options: PardAnswerOptions = arguments::options(options, "pard_answer_options")?;
            (options, options.limits()?, options.sampling()?)
        };
        let prompt = tokens(&writer.model, &options)?;
        writer.start(&prompt, limits, sampling, &self.cancelled)
    }
}

/// `pard_session_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_session_new(
    model: *const PardModel,
    draft: *const PardDraft,
    options: *const PardSessionOptions,
    session: *mut *mut PardSession,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: as above.
    unsafe {
        give(session, error, || {
            let model = &arguments::handle(model, "model")?.model;
            let draft = draft.as_ref();
            if draft.is_some_and(|draft| !Arc::ptr_eq(&draft.target, model)) {
                return Err(Failure::draft("the draft was loaded for another model"));
            }
            let options: PardSessionOptions = arguments::options(options, "pard_session_options")?;
            let options = options.sequence_options(model, draft)?;
            let engine_options = EngineOptions::default().context(options.context);
            let engine = Engine::new(model, draft.map(|draft| &draft.draft), engine_options)?;
            let mut sequence = engine.add(options)?;
            sequence.measure_costs_between_rounds();
            let writer = Mutex::new(Writer::new(model.clone(), sequence));
            Ok(PardSession { writer, cancelled: AtomicBool::new(false) })
        })
    }
}

/// `pard_session_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_session_free(session: *mut PardSession) {
    // SAFETY: as above.
    unsafe { free(session) };
}

/// `pard_session_start`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_session_start(
    session: *mut PardSession,
    text: *const c_char,
    options: *const PardAnswerOptions,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: as above.
    unsafe {
        guard(error, || {
            let session = arguments::handle(session, "session")?;
            session.start(options, |model, _| Ok(model.text.text_tokens(arguments::text(text, "text")?)?))
        })
    }
}

/// `pard_session_start_chat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_session_start_chat(
    session: *mut PardSession,
    messages: *const PardMessage,
    message_count: usize,
    options: *const PardAnswerOptions,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: as above.
    unsafe {
        guard(error, || {
            let session = arguments::handle(session, "session")?;
            let tokens = |model: &Model, options: &PardAnswerOptions| {
                chat_tokens(&model.text, messages, message_count, options.thinking)
            };
            session.start(options, tokens)
        })
    }
}

/// `pard_session_start_tokens`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_session_start_tokens(
    session: *mut PardSession,
    tokens: *const u32,
    count: usize,
    options: *const PardAnswerOptions,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: as above.
    unsafe {
        guard(error, || {
            let session = arguments::handle(session, "session")?;
            session.start(options, |_, _| Ok(arguments::list(tokens, count, "tokens")?.to_vec()))
        })
    }
}

/// `pard_session_round`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_session_round(
    session: *mut PardSession,
    round: *mut PardRound,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: as above.
    unsafe {
        guard(error, || {
            let session = arguments::handle(session, "session")?;
            let mut writer = session.writer()?;
            // A struct that cannot be filled must not cost a round.
            if !round.is_null() {
                arguments::check_size(round, "pard_round")?;
            }
            let written = writer.round(&session.cancelled)?;
            if round.is_null() { Ok(()) } else { arguments::fill(round, &written, "pard_round") }
        })
    }
}

/// `pard_session_run`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_session_run(
    session: *mut PardSession,
    on_round: Option<PardOnRound>,
    user: *mut c_void,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: as above.
    unsafe {
        guard(error, || {
            let session = arguments::handle(session, "session")?;
            session.writer()?.run(&session.cancelled, on_round, user)
        })
    }
}

/// `pard_session_cancel`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_session_cancel(session: *mut PardSession) {
    // SAFETY: as above.
    if let Some(session) = unsafe { session.as_ref() } {
        session.cancelled.store(true, Ordering::Relaxed);
    }
}

/// `pard_session_text`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_session_text(session: *mut PardSession) -> *const c_char {
    // SAFETY: as above.
    let writer = unsafe { session.as_ref() }.and_then(|session| session.writer().ok());
    writer.map_or(c"".as_ptr(), |writer| writer.text.as_ptr().cast())
}

/// `pard_session_statistics`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_session_statistics(
    session: *mut PardSession,
    statistics: *mut PardStatistics,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: as above.
    unsafe {
        guard(error, || {
            let session = arguments::handle(session, "session")?;
            let filled = session.writer()?.statistics();
            arguments::fill(statistics, &filled, "pard_statistics")
        })
    }
}
