//! `inputs` and `accept` on the device: by hand, and round by round beside the toy decoders. There the device says which
//! ids lie where, toy models on the host choose, and text, lengths and caches must be those of the rule.

use pard_engine::decoding::MAX_DRAFTS;
use pard_engine::gpu::{Buffer, Device};
use pard_engine::ops::{Accept, BuildInputs, ModelRole, RoundBuffers, RoundParams, Session, Step};

use super::{POISON, poison, submit, words};
use crate::oracle::accept::accept;
use crate::oracle::speculative::{Next, Proposer, Token, ToyDecoder, ToyModel};
use crate::speculative_rule::{MASK, Method, QUALITIES, Quality, decoder, draft_next, prompt, target_next};
use crate::support::gpu::{device, sweep};
use crate::support::random::Random;

/// The slot of the caches that rows are told of.
const SLOT: u32 = 3;
/// Room for ids, and for tokens.
const IDS: usize = 64;
const TOKENS: usize = 512;

/// The buffers of a decoder.
struct State {
    device: &'static Device,
    session: Buffer,
    tokens: Buffer,
    proposals: Buffer,
    choices: Buffer,
    record: Buffer,
    step: Buffer,
    ids: Buffer,
}

impl State {
    /// The caches hold what `session` says of `tokens`.
    fn new(tokens: &[Token], session: Session) -> Self {
        let device = device();
        Self {
            device,
            session: Buffer::with_values(device, "session", &[session]).expect("a small buffer"),
            tokens: words(device, TOKENS, tokens),
            proposals: words(device, 2 * MAX_DRAFTS, &[]),
            choices: words(device, 2 * MAX_DRAFTS, &[]),
            record: words(device, 2 + MAX_DRAFTS, &[]),
            step: Buffer::shared::<Step>(device, "step").expect("a small buffer"),
            ids: words(device, IDS, &[]),
        }
    }

    fn buffers(&self) -> RoundBuffers<'_> {
        let State { session, tokens, proposals, choices, record, .. } = self;
        RoundBuffers { session, tokens, proposals, choices, record }
    }

    /// Runs `inputs`; returns the step and the ids of its rows.
    fn inputs(&self, whose: ModelRole, params: RoundParams) -> (Step, Vec<u32>) {
        poison(self.device, &self.step);
        poison(self.device, &self.ids);
        let op = BuildInputs::new(self.device, whose, params, self.buffers(), &self.step, &self.ids).expect("buffers");
        submit(self.device, |pass| op.encode(pass));
        let step = self.step.read::<Step>(self.device, 0, 1).expect("reading back")[0];
        let mut ids: Vec<u32> = self.ids.read(self.device, 0, IDS).expect("reading back");
        let beyond = ids.split_off(params.rows as usize);
        assert!(beyond.into_iter().all(|id| id == POISON), "ids beyond the rows: {params:?}");
        (step, ids)
    }

    /// Runs `accept`; returns the tokens that it reports.
    fn accept(&self, params: RoundParams) -> Vec<Token> {
        poison(self.device, &self.record);
        let op = Accept::new(self.device, params, self.buffers()).expect("buffers");
        submit(self.device, |pass| op.encode(pass));
        let record: Vec<u32> = self.record.read(self.device, 0, 2 + MAX_DRAFTS).expect("reading back");
        let (reported, beyond) = record[1..].split_at(record[0] as usize);
        assert!(beyond.iter().all(|&token| token == POISON), "more than is reported: {record:?}");
        reported.to_vec()
    }

    fn session(&self) -> Session {
        self.session.read(self.device, 0, 1).expect("reading back")[0]
    }

    /// The committed tokens, after checking that none is written beyond them.
    fn tokens(&self) -> Vec<Token> {
        let mut tokens: Vec<Token> = self.tokens.read(self.device, 0, TOKENS).expect("reading back");
        let beyond = tokens.split_off(self.session().tokens as usize);
        assert!(beyond.into_iter().all(|token| token == POISON), "tokens beyond the committed ones");
        tokens
    }
}

fn params(drafts: usize, parallel: bool, pass_index: usize, rows: usize) -> RoundParams {
    let [drafts, pass_index, rows] = [drafts, pass_index, rows].map(|count| count as u32);
    RoundParams { drafts, mask: MASK, parallel: u32::from(parallel), pass_index, rows, slot: SLOT }
}

#[test]
fn inputs_by_hand() {
    let session = Session { tokens: 4, target_rows: 3, draft_rows: 2 };
    let state = State::new(&[50, 51, 52, 53], session);
    state.proposals.write(device(), 0, &[60u32, 61, 62]);
    let step = |start, rows, first_output, outputs, first_choice| Step {
        start,
        rows,
        first_output,
        outputs,
        first_choice,
        slot: SLOT,
    };

    // A parallel draft: the two tokens it has not seen, then masks for d2 and d3; the last token's row gives d1.
    let parallel = state.inputs(ModelRole::Draft, params(3, true, 0, 4));
    assert_eq!(parallel, (step(2, 4, 1, 3, 0), vec![52, 53, MASK, MASK]));
    // A surplus row reads one more mask.
    let surplus = state.inputs(ModelRole::Draft, params(3, true, 0, 5));
    assert_eq!(surplus, (step(2, 5, 1, 3, 0), vec![52, 53, MASK, MASK, MASK]));
    // An autoregressive draft: what it has not seen gives d1; d1 gives d2, and d2 gives d3.
    assert_eq!(state.inputs(ModelRole::Draft, params(3, false, 0, 2)), (step(2, 2, 1, 1, 0), vec![52, 53]));
    assert_eq!(state.inputs(ModelRole::Draft, params(3, false, 1, 1)), (step(4, 1, 0, 1, 1), vec![60]));
    assert_eq!(state.inputs(ModelRole::Draft, params(3, false, 2, 1)), (step(5, 1, 0, 1, 2), vec![61]));
    // The target: the newest token and all proposals.
    assert_eq!(state.inputs(ModelRole::Target, params(3, true, 0, 4)), (step(3, 4, 0, 4, 0), vec![53, 60, 61, 62]));
    assert_eq!(state.inputs(ModelRole::Target, params(3, false, 0, 4)), (step(3, 4, 0, 4, 0), vec![53, 60, 61, 62]));
    // No draft: one row.
    assert_eq!(state.inputs(ModelRole::Target, params(0, false, 0, 1)), (step(3, 1, 0, 1, 0), vec![53]));
}

#[test]
fn accept_commits_what_the_oracle_accepts() {
    let mut random = Random::new(71);
    for drafts in 0..=MAX_DRAFTS {
        for agreeing in 0..=drafts {
            for parallel in [false, true] {
                let proposals: Vec<Token> = random.indices(drafts, 1000);
                let mut choices = proposals.clone();
                choices.push(7000);
                // After the first disagreement some may agree again; they are no longer wanted.
                if agreeing < drafts {
                    choices[agreeing] += 5000;
                }
                let known = 1 + random.below(40);
                let committed: Vec<Token> = random.indices(known, 1000);
                let session = Session { tokens: known as u32, target_rows: known as u32 - 1, draft_rows: 0 };
                let state = State::new(&committed, session);
                state.proposals.write(device(), 0, &proposals);
                state.choices.write(device(), 0, &choices);
                let kept = state.accept(params(drafts, parallel, 0, 0));
                let context = format!("K = {drafts}, {agreeing} agree, parallel {parallel}");
                assert_eq!(kept, accept(&proposals, &choices), "{context}");
                assert_eq!(kept.len(), agreeing + 1, "{context}");
                assert_eq!(state.tokens(), [committed, kept].concat(), "{context}");
                let draft_rows = match drafts {
                    0 => 0,
                    _ if parallel => known,
                    _ => (known + drafts - 1).min(known + agreeing),
                };
                let [tokens, target_rows, draft_rows] =
                    [known + agreeing + 1, known + agreeing, draft_rows].map(|count| count as u32);
                assert_eq!(state.session(), Session { tokens, target_rows, draft_rows }, "{context}");
            }
        }
    }
}

/// A toy model whose cache goes where the device's steps say.
struct Follower<'a> {
    next: Next<'a>,
    cache: Vec<Token>,
}

impl Follower<'_> {
    /// The choices of the step's output rows, and where they go.
    fn forward(&mut self, (step, ids): (Step, Vec<u32>)) -> (u64, Vec<Token>) {
        let [start, first, outputs] = [step.start, step.first_output, step.outputs].map(|count| count as usize);
        assert!(start <= self.cache.len(), "rows {}..{start} were never fed", self.cache.len());
        assert!(first + outputs <= ids.len() && ids.len() == step.rows as usize, "{step:?}");
        self.cache.truncate(start);
        let mut choices = Vec::new();
        // Surplus rows after the last output may hold anything.
        for (row, id) in ids.into_iter().enumerate().take(first + outputs) {
            self.cache.push(id);
            if row >= first {
                choices.push((self.next)(&self.cache));
            }
        }
        (4 * u64::from(step.first_choice), choices)
    }
}

/// Runs rounds on the device beside those of the toy decoder, with `surplus` rows more than needed.
fn follows(method: Option<Method>, quality: Quality, drafts: usize, seed: u64, surplus: usize) {
    let context = format!("{method:?}, {quality:?}, K = {drafts}, seed {seed}, {surplus} surplus rows");
    let prompt = prompt(seed);
    let mut toy = match method {
        Some(method) => decoder(seed, method, quality, drafts, &prompt),
        None => {
            ToyDecoder::new(ToyModel::new(move |tokens| target_next(seed, tokens)), Proposer::None, drafts, &prompt)
        }
    };
    let seen = prompt.len() as u32 - 1;
    let state = State::new(&prompt, Session { tokens: prompt.len() as u32, target_rows: seen, draft_rows: seen });
    let follower = |next: Next<'static>| Follower { next, cache: prompt[..seen as usize].to_vec() };
    let mut target = follower(Box::new(move |tokens| target_next(seed, tokens)));
    let mut draft = follower(Box::new(move |tokens| draft_next(seed, quality, tokens)));
    let parallel = method == Some(Method::Pard);
    for round in 0..5 {
        let session = state.session();
        let unseen = (session.tokens - session.draft_rows) as usize;
        let passes = match method {
            None => vec![],
            Some(Method::Pard) => vec![(0, unseen + drafts - 1 + surplus)],
            Some(Method::Vsd) => {
                (0..drafts).map(|index| (index, if index == 0 { unseen } else { 1 } + surplus)).collect()
            }
        };
        for (index, rows) in passes {
            let (at, proposed) = draft.forward(state.inputs(ModelRole::Draft, params(drafts, parallel, index, rows)));
            state.proposals.write(device(), at, &proposed);
        }
        let rows = (session.tokens - session.target_rows) as usize + drafts + surplus;
        let (at, chosen) = target.forward(state.inputs(ModelRole::Target, params(drafts, parallel, 0, rows)));
        state.choices.write(device(), at, &chosen);
        let kept = state.accept(params(drafts, parallel, 0, 0));

        assert_eq!(kept, toy.round(), "{context}, round {round}");
        assert_eq!(state.tokens(), toy.tokens, "{context}, round {round}");
        let session = state.session();
        let target_rows = session.target_rows as usize;
        assert_eq!(target.cache[..target_rows], toy.target.cache, "{context}, round {round}");
        if let Proposer::Chain(toy_draft) | Proposer::Parallel { draft: toy_draft, .. } = &toy.proposer {
            let draft_rows = session.draft_rows as usize;
            assert_eq!(draft.cache[..draft_rows], toy_draft.cache, "{context}, round {round}");
        }
    }
}

#[test]
fn rounds_follow_the_rule_for_every_draft_length() {
    for seed in 0..if sweep() { 6 } else { 2 } {
        follows(None, Quality::Perfect, 0, seed, 0);
        for method in [Method::Vsd, Method::Pard] {
            for (index, quality) in QUALITIES.into_iter().enumerate() {
                for drafts in 1..=MAX_DRAFTS {
                    if sweep() || (index + drafts) % 2 == seed as usize {
                        follows(Some(method), quality, drafts, seed, 0);
                    }
                }
            }
        }
    }
}

#[test]
fn surplus_rows_are_harmless() {
    follows(None, Quality::Perfect, 0, 0, 3);
    for method in [Method::Vsd, Method::Pard] {
        for drafts in [1, 2, 8, 12] {
            follows(Some(method), Quality::MostlyRight, drafts, 3, 1);
            follows(Some(method), Quality::Arbitrary, drafts, 3, 4);
        }
    }
}
