//! Choice of the draft length, round by round. A round of K proposals commits 1 + Σ Π a tokens, where a is the chance
//! that the proposal at each position is accepted if those before it are; it takes a pass over K + 1 rows and the
//! draft's. The K with the most tokens per second is taken, 0 included. Speculation that stopped paying rests and is
//! tried again, each time after a longer rest: a trial is not free, as the draft has to read the tokens written since.

use super::options::{MAX_DRAFTS, Method};
use crate::model::PassCost;
use crate::ops::MAX_ROWS;

/// Costs of the passes of a target and its draft.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    /// The target's.
    pub target: PassCost,
    /// The draft's.
    pub draft: PassCost,
}

impl Costs {
    /// Passes that cost the same whatever they do, for counting tokens a round.
    pub(super) fn equal() -> Costs {
        Costs { target: PassCost::from_points(&[(1, 1.0)]), draft: PassCost::from_points(&[]) }
    }

    /// The K that promises the most tokens per second by `method` if each proposal is accepted with the chance `chance`,
    /// once those before it are; and the tokens per second. K is 0 where plain decoding promises as many.
    pub fn promise(&self, method: Method, chance: f64) -> (usize, f64) {
        let pace = Pace::new(method, self.clone(), 0.0);
        let chances = [chance.clamp(0.0, 1.0); MAX_DRAFTS];
        let drafts = pace.best(&chances);
        (drafts, pace.promise_of(&chances[..drafts]).rate())
    }
}

/// Estimate of a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Promise {
    /// Mean number of tokens that it commits.
    pub tokens: f64,
    /// Time that it takes.
    pub seconds: f64,
}

impl Promise {
    /// Tokens a second.
    pub fn rate(&self) -> f64 {
        self.tokens / self.seconds.max(1e-9)
    }
}

/// Estimate of whether speculation pays, with the reason if it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speculation {
    /// It pays.
    Pays,
    /// Not even full acceptance would pay: passes over several rows are too slow here, or the draft is.
    TooSlow,
    /// Too few proposals are accepted.
    TooRarelyAccepted,
}

/// Chooses K.
#[derive(Debug, Clone)]
pub struct Pace {
    method: Method,
    costs: Costs,
    /// Seconds that a round with proposals takes to another device and back.
    crossing: f64,
    /// For each position, how often a proposal was checked and how often it was accepted; old evidence counts less.
    checked: [f64; MAX_DRAFTS],
    accepted: [f64; MAX_DRAFTS],
    /// Rounds until speculation is tried again, how long the next rest will be, and the shortest one.
    resting: usize,
    next_rest: usize,
    short_rest: usize,
    /// Rounds that may speculate after each rest before they have to pay, and how many of them are left. None if nothing
    /// could ever pay.
    most_trials: usize,
    trials: usize,
    /// Rounds in a row that speculated, and the most proposals that one of them had accepted.
    streak: usize,
    reach: usize,
}

/// Prior of the first position's acceptance rate, and its weight in checks. A later position's prior is the estimate for
/// the position before it.
const PRIOR: f64 = 0.8;
const PRIOR_WEIGHT: f64 = 2.0;
/// Factors on the weight of evidence after one more check, and after a rest.
const FADING: f64 = 0.98;
const RESTED: f64 = 0.2;
/// The shortest and the longest rest, in rounds; speculation that lasted for as many rounds as the shortest is trusted as
/// at first.
const SHORT_REST: usize = 32;
const LONG_REST: usize = 1024;
/// Share of the first rest's time that reading [`SHORT_REST`] tokens with the draft may take. A more expensive draft
/// rests longer at first: an answer that ends meanwhile never pays for it, and a longer one seldom.
const READING: f64 = 0.01;
/// Cost allowed for finding out whether speculation pays, in plain rounds, and the most rounds of a trial: the first
/// proposal of a good draft is often refused by chance.
const TRYING: f64 = 2.0;
const MAX_TRIALS: f64 = 8.0;
/// K is at most twice the longest run accepted since the last rest, and this at first: a guess should not cost much.
const FIRST_DRAFTS: usize = 2;
/// Factor by which speculation's estimate has to exceed AR's, since times are not that exact.
pub const MARGIN: f64 = 1.02;

impl Pace {
    pub fn new(method: Method, costs: Costs, crossing: f64) -> Pace {
        let reading = costs.draft.of(MAX_ROWS as f64) / MAX_ROWS as f64 / costs.target.of(1.0).max(1e-9);
        let rest = SHORT_REST as f64 * reading / READING;
        let short_rest = (rest as usize).clamp(SHORT_REST, LONG_REST);
        let mut pace = Pace {
            method,
            costs,
            crossing,
            checked: [0.0; MAX_DRAFTS],
            accepted: [0.0; MAX_DRAFTS],
            resting: 0,
            next_rest: short_rest,
            short_rest,
            most_trials: 0,
            trials: 0,
            streak: 0,
            reach: 0,
        };
        if !pace.is_hopeless() {
            let plain = pace.seconds(0, 1.0);
            let trials = TRYING * plain / (pace.seconds(1, 1.0) - plain).max(1e-9);
            pace.most_trials = trials.clamp(1.0, MAX_TRIALS) as usize;
            pace.trials = pace.most_trials;
        }
        pace
    }

    /// Returns `true` if speculation would not pay even if every proposal were accepted.
    fn is_hopeless(&self) -> bool {
        self.best(&[1.0; MAX_DRAFTS]) == 0
    }

    /// The K that promises the most tokens per second.
    pub fn choose(&self) -> usize {
        self.best(&self.chances()).max(self.trials.min(1)).min(self.limit())
    }

    /// Estimates a round of `drafts` proposals.
    pub fn promise(&self, drafts: usize) -> Promise {
        self.promise_of(&self.chances()[..drafts])
    }

    /// The longest draft that may be tried now.
    pub fn limit(&self) -> usize {
        if self.resting > 0 { 0 } else { (2 * self.reach).clamp(FIRST_DRAFTS, MAX_DRAFTS) }
    }

    /// Takes note of a round without proposals that says nothing about their acceptance rate.
    pub fn pass_by(&mut self) {
        if self.resting > 0 {
            self.observe(0, 0);
        }
    }

    /// The costs of passes.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    /// Estimates whether speculation pays at present.
    pub fn speculation(&self) -> Speculation {
        if self.choose() > 0 {
            Speculation::Pays
        } else if self.is_hopeless() {
            Speculation::TooSlow
        } else {
            Speculation::TooRarelyAccepted
        }
    }

    /// Takes note of a round of `drafts` proposals of which `accepted` were accepted.
    pub fn observe(&mut self, drafts: usize, accepted: usize) {
        if drafts == 0 {
            (self.streak, self.reach) = (0, 0);
            self.resting = self.resting.saturating_sub(1);
            if self.resting == 0 {
                self.trials = self.most_trials;
                self.checked.iter_mut().chain(&mut self.accepted).for_each(|count| *count *= RESTED);
            }
            return;
        }
        // Proposals after a refused one were not checked.
        for position in 0..drafts.min(accepted + 1) {
            self.checked[position] = self.checked[position] * FADING + 1.0;
            self.accepted[position] = self.accepted[position] * FADING + f64::from(u8::from(position < accepted));
        }
        self.streak += 1;
        self.trials = self.trials.saturating_sub(1);
        self.reach = self.reach.max(accepted);
        if self.streak >= SHORT_REST {
            self.next_rest = self.short_rest;
        }
        if self.choose() == 0 {
            self.resting = self.next_rest;
            self.next_rest = (2 * self.next_rest).min(LONG_REST);
        }
    }

    /// For each position the chance that its proposal is accepted if those before it are.
    pub fn chances(&self) -> [f64; MAX_DRAFTS] {
        let mut chances = [0.0; MAX_DRAFTS];
        let mut before = PRIOR;
        for (chance, (accepted, checked)) in chances.iter_mut().zip(self.accepted.iter().zip(&self.checked)) {
            *chance = (accepted + PRIOR_WEIGHT * before) / (checked + PRIOR_WEIGHT);
            before = *chance;
        }
        chances
    }

    fn best(&self, chances: &[f64; MAX_DRAFTS]) -> usize {
        let (mut best, mut most) = (0, MARGIN * self.promise_of(&[]).rate());
        for drafts in 1..=MAX_DRAFTS {
            let rate = self.promise_of(&chances[..drafts]).rate();
            if rate > most {
                (best, most) = (drafts, rate);
            }
        }
        best
    }

    /// Estimates a round whose proposals have these chances.
    fn promise_of(&self, chances: &[f64]) -> Promise {
        let (mut tokens, mut all_accepted) = (1.0, 1.0);
        for chance in chances {
            all_accepted *= chance;
            tokens += all_accepted;
        }
        Promise { tokens, seconds: self.seconds(chances.len(), tokens) }
    }

    /// Estimates the seconds of a round if rounds commit `tokens` tokens each.
    fn seconds(&self, drafts: usize, tokens: f64) -> f64 {
        let k = drafts as f64;
        let draft = match self.method {
            _ if drafts == 0 => return self.costs.target.of(1.0),
            Method::Pard => self.costs.draft.of(tokens + k - 1.0),
            // The first pass reads the last token, and after a fully accepted round the last proposal before it.
            Method::Vsd | Method::Ar => k * self.costs.draft.of(1.0),
            Method::Ngram => 0.0,
        };
        draft + self.costs.target.of(k + 1.0) + self.crossing
    }
}
