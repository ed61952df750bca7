//! Sampling parameters. A token is drawn as argmax(logits / T + g) with Gumbel noise g that is a function of the seed,
//! the position and the token alone (arXiv:1411.0030). A draft that draws by the same noise proposes what its target will
//! draw, as far as their distributions agree; the check stays an equality, and the target's distribution is kept. So AR,
//! VSD and PARD write the same tokens at any temperature. The rejection rule of arXiv:2211.17192 gives this up: there,
//! the text depends on the proposals.

use crate::error::{Error, OptionName, Result};
use crate::model::Stages;
use crate::ops::{BANNED, TurnSampling};
use crate::text::{Grammar, Thinking};

/// Rule by which a draft model's proposals are accepted, where tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AcceptanceRule {
    /// Accepts a proposal that equals the target's draw by the noise of its seed and position, by which the draft draws
    /// as well. The text is the target's alone: every method and every K writes the same.
    #[default]
    Noise,
    /// The rejection rule of speculative sampling: a proposal is accepted with chance min(1, p / q), where p is its
    /// probability under the target and q under the draft; else a token is drawn from the excess of p over q. More
    /// proposals are accepted, and the text is distributed as the target's, but it depends on the draft and on K. Source:
    /// Leviathan et al. 2023, arXiv:2211.17192.
    Rejection,
}

impl AcceptanceRule {
    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            AcceptanceRule::Noise => "noise",
            AcceptanceRule::Rejection => "rejection",
        }
    }
}

/// The highest temperature. Tokens are as good as evenly distributed long before it.
pub const MAX_TEMPERATURE: f32 = 1000.0;
/// The largest presence or frequency penalty, and with a minus the smallest.
pub const MAX_PENALTY: f32 = 100.0;
/// The largest repetition penalty; its reciprocal is the smallest.
pub const MAX_REPETITION: f32 = 1000.0;
/// The largest bias of a token, and with a minus the smallest.
pub const MAX_BIAS: f32 = 10_000.0;
/// The most tokens whose log-probabilities are reported beside the chosen one's, as in OpenAI's interface.
pub const MAX_LOGPROBS: usize = 20;

/// Sampling parameters: penalties, biases and bans change the logits, the temperature divides them, top-k, top-p and
/// min-p leave some tokens out, in this order, and one is drawn from the rest. The defaults take the likeliest token and
/// change nothing. Their effect does not depend on the method or on K.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SamplingParams {
    /// Tokens are drawn from `softmax(logits / temperature)`, 0 to [`MAX_TEMPERATURE`]; 0 takes the likeliest.
    pub temperature: f32,
    /// Names the draws: a prompt and a seed give the same text every time, on the same device.
    pub seed: u64,
    /// Draws from the so many likeliest tokens; 0: from all. Of equals at the edge all stay.
    pub top_k: usize,
    /// Draws from the likeliest tokens that have this share of the probability of those that `top_k` leaves, above 0 up
    /// to 1; 1: from all. Source: Holtzman et al. 2019, arXiv:1904.09751.
    pub top_p: f32,
    /// Draws from tokens that are at least this share as probable as the likeliest, 0 to 1; 0: from all. Source: Nguyen et
    /// al. 2024, arXiv:2407.01082.
    pub min_p: f32,
    /// Divides the logit of a token that prompt or answer has if it is positive, else multiplies it; 1 changes nothing.
    /// From 1 / [`MAX_REPETITION`] to [`MAX_REPETITION`]. Source: Keskar et al. 2019, arXiv:1909.05858, as Transformers
    /// has it.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of a token that the answer has, the prompt left out, as in OpenAI's interface. 0 changes
    /// nothing. Of size [`MAX_PENALTY`] at most.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token as often as the answer has it, the prompt left out. 0 changes nothing. Of
    /// size [`MAX_PENALTY`] at most.
    pub frequency_penalty: f32,
    /// Tokens and the biases added to their logits before all else, of size [`MAX_BIAS`] at most; several for one token
    /// add up.
    pub logit_bias: Vec<(u32, f32)>,
    /// Tokens that are never chosen.
    pub banned: Vec<u32>,
    /// Grammar of the answer: tokens that it does not allow are not chosen. Texts that it forces are proposed without a
    /// draft's pass, but with [`super::Method::Ar`].
    pub grammar: Option<Grammar>,
    /// Block of thoughts at the answer's beginning, as [`crate::text::ChatTokenizer::thinking`] finds it in a prompt: the grammar
    /// begins after it. Within it nothing but the answer's end is forbidden.
    pub thinking: Thinking,
    /// None: no log-probabilities. Otherwise those of each chosen token and of so many likeliest ones, 0 to
    /// [`MAX_LOGPROBS`]; see [`TokenLogprobs`].
    pub top_logprobs: Option<usize>,
}

crate::builder::setters! {
    SamplingParams {
        temperature: f32,
        seed: u64,
        top_k: usize,
        top_p: f32,
        min_p: f32,
        repetition_penalty: f32,
        presence_penalty: f32,
        frequency_penalty: f32,
        logit_bias: Vec<(u32, f32)>,
        banned: Vec<u32>,
        grammar: Option<Grammar>,
        thinking: Thinking,
        top_logprobs: Option<usize>,
    }
}

impl Default for SamplingParams {
    fn default() -> SamplingParams {
        SamplingParams {
            temperature: 0.0,
            seed: 0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            banned: Vec::new(),
            grammar: None,
            thinking: Thinking::None,
            top_logprobs: None,
        }
    }
}

/// Log-probability of a chosen token, and of the likeliest ones.
///
/// Natural logarithms of softmax(logits) as the model gives them: before biases, penalties, grammar, temperature and
/// truncation, as llama.cpp and OpenAI report them. A token chosen for its bias may therefore have a very low one.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The token that was chosen.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// The likeliest tokens and their log-probabilities, the likeliest first, as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

impl SamplingParams {
    /// Returns `true` if the likeliest token is taken and logits are not changed.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 && !self.adjusts()
    }

    /// Returns `true` if truncation leaves tokens out of the draw.
    pub(super) fn truncates(&self) -> bool {
        self.temperature > 0.0 && (self.top_k > 0 || self.top_p < 1.0 || self.min_p > 0.0)
    }

    /// Returns `true` if choices depend on the tokens that the text already has.
    pub(super) fn counts(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Returns `true` if logits are changed.
    pub(super) fn adjusts(&self) -> bool {
        self.biases_tokens() || self.counts() || self.grammar.is_some()
    }

    fn biases_tokens(&self) -> bool {
        !self.logit_bias.is_empty() || !self.banned.is_empty()
    }

    /// Returns `true` if proposals of a draft model are accepted by the rejection rule, as `acceptance` asks for: then the
    /// text depends on them.
    pub(super) fn rejects(&self, acceptance: AcceptanceRule) -> bool {
        acceptance == AcceptanceRule::Rejection && self.temperature > 0.0
    }

    /// The stages that a choice goes through; `rejects` says whether proposals are accepted by the rejection rule.
    pub(super) fn stages(&self, rejects: bool) -> Stages {
        let (adjusts, constrains) = (self.adjusts(), self.grammar.is_some());
        Stages { adjusts, constrains, truncates: self.truncates(), draws: self.temperature > 0.0, rejects }
    }

    /// The same parameters as kernels read them, where logits are those of `limit` tokens.
    pub(super) fn turn(&self, rejects: bool, limit: usize) -> TurnSampling {
        let [seed, draft_seed, accept_seed] = [0, 1, 2].map(|index| noise(self.seed, index));
        let is_cut = self.truncates();
        let biases = u32::from(self.biases_tokens() || self.counts()) * TurnSampling::BIASES;
        let penalties = u32::from(self.counts()) * TurnSampling::PENALTIES;
        let grammar = u32::from(self.grammar.is_some()) * TurnSampling::GRAMMAR;
        let temperature = TurnSampling::temperature(self.temperature);
        TurnSampling {
            temperature,
            seed,
            // A draft that draws by the target's noise proposes what the target will draw.
            draft_seed: if rejects { draft_seed } else { seed },
            accept_seed,
            // All that there are need no search.
            top_k: if is_cut && self.top_k < limit { self.top_k as u32 } else { 0 },
            top_p: if is_cut { self.top_p } else { 1.0 },
            min_p_gap: TurnSampling::min_p_gap(temperature, if is_cut { self.min_p } else { 0.0 }),
            repetition: self.repetition_penalty,
            presence: self.presence_penalty,
            frequency: self.frequency_penalty,
            changes: biases + penalties + grammar,
            logprobs: self.top_logprobs.map_or(0, |top| 1 + top.min(limit) as u32),
        }
    }

    /// The bias of each logit, for a vocabulary of `vocab` tokens that holds all tokens it names.
    pub(super) fn biases(&self, vocab: usize) -> Vec<f32> {
        let mut biases = vec![0.0; vocab];
        for &(id, bias) in &self.logit_bias {
            biases[id as usize] += bias;
        }
        for &id in &self.banned {
            biases[id as usize] = BANNED;
        }
        biases
    }

    /// Checks the ranges that do not depend on the model.
    ///
    /// # Errors
    ///
    /// [`Error::Option`], which names the option that is out of range.
    pub fn check(&self) -> Result<()> {
        let fault = |option, reason| Err(Error::Option { option, reason });
        let ranges = [
            (OptionName::Temperature, self.temperature, 0.0, MAX_TEMPERATURE),
            (OptionName::MinP, self.min_p, 0.0, 1.0),
            (OptionName::RepetitionPenalty, self.repetition_penalty, 1.0 / MAX_REPETITION, MAX_REPETITION),
            (OptionName::PresencePenalty, self.presence_penalty, -MAX_PENALTY, MAX_PENALTY),
            (OptionName::FrequencyPenalty, self.frequency_penalty, -MAX_PENALTY, MAX_PENALTY),
        ];
        for (option, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return fault(option, format!("{value} is not between {least} and {most}"));
            }
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return fault(
                OptionName::TopP,
                format!("{} is not above 0 and at most 1; 1 leaves no token out", self.top_p),
            );
        }
        if let Some((id, bias)) = self.logit_bias.iter().find(|(_, bias)| !(-MAX_BIAS..=MAX_BIAS).contains(bias)) {
            let reason =
                format!("{bias} of token {id} is not between -{MAX_BIAS} and {MAX_BIAS}; a ban excludes a token");
            return fault(OptionName::LogitBias, reason);
        }
        match self.top_logprobs {
            Some(count) if count > MAX_LOGPROBS => {
                fault(OptionName::TopLogprobs, format!("{count} are more than the supported {MAX_LOGPROBS}"))
            }
            _ => Ok(()),
        }
    }

    /// Checks the tokens that it names, for a model of `vocab` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Option`], which names the option and the token that the model does not know.
    pub fn check_tokens(&self, vocab: usize) -> Result<()> {
        let biased = self.logit_bias.iter().map(|&(id, _)| (OptionName::LogitBias, id));
        let banned = self.banned.iter().map(|&id| (OptionName::Banned, id));
        if let Some((option, id)) = biased.chain(banned).find(|&(_, id)| id as usize >= vocab) {
            let reason = format!("token {id} is outside the vocabulary of {vocab} tokens");
            return Err(Error::Option { option, reason });
        }
        let distinct: std::collections::HashSet<u32> = self.banned.iter().copied().collect();
        if distinct.len() == vocab {
            let reason = format!("they are all {vocab} that the model knows; leave one");
            return Err(Error::Option { option: OptionName::Banned, reason });
        }
        Ok(())
    }
}

/// Step of the state of splitmix64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The seed of the text `index` of many under `seed`: the first one has the seed itself.
pub(super) fn seed_of(seed: u64, index: usize) -> u64 {
    seed.wrapping_add((index as u64).wrapping_mul(STEP))
}

/// The seed number `index` of the noise under `seed` (splitmix64; Steele, Lea & Flood 2014).
fn noise(seed: u64, index: usize) -> u32 {
    let state = seed_of(seed, index + 1);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as u32
}
