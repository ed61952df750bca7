//! `inputs` and `accept` on the device: by hand, and round by round beside the toy decoders. There the device says which
//! ids lie where, toy models on the host choose, and text, lengths and caches must be those of the rule.

use pard::decoding::MAX_DRAFTS;
use pard::low_level::gpu::{Buffer, Device};
use pard::low_level::ops::{
    Accept, BuildInputs, CHOICES, MAX_ROWS, ModelRole, PassPlan, PassRow, ProposerKind, RECORD, RoundBuffers, Session,
    Step, Turn,
};

use super::{POISON, poison, submit, words};
use crate::oracle::accept::accept;
use crate::oracle::speculative::{Next, Proposer, Token, ToyDecoder, ToyModel};
use crate::speculative_rule::{MASK, Method, QUALITIES, Quality, decoder, draft_next, prompt, target_next};
use crate::support::gpu::{device, sweep};
use crate::support::random::Random;

/// Slots that there are, room for tokens in each, and the slot of a sequence alone.
const SLOTS: usize = 5;
const ROOM: usize = 512;
const SLOT: usize = 3;

/// The state of several sequences on the device, and the buffers of a round.
struct State {
    device: &'static Device,
    turns: Buffer,
    sessions: Buffer,
    tokens: Buffer,
    proposals: Buffer,
    choices: Buffer,
    record: Buffer,
    step: Buffer,
    ids: Buffer,
    batch: Buffer,
}

/// What `inputs` makes of a plan.
struct Inputs {
    step: Step,
    ids: Vec<u32>,
    rows: Vec<PassRow>,
}

impl State {
    /// Every slot has a sequence of its own, of which the caches hold what its session says.
    fn new(sequences: &[(usize, &[Token], Session)]) -> Self {
        let device = device();
        let mut sessions = [Session { tokens: 7, target_rows: 6, draft_rows: 5 }; SLOTS];
        let tokens = words(device, SLOTS * ROOM, &[]);
        for &(slot, known, session) in sequences {
            sessions[slot] = session;
            tokens.write(device, (4 * ROOM * slot) as u64, known);
        }
        Self {
            device,
            turns: Turn::buffer(device).expect("a small buffer"),
            sessions: Buffer::with_values(device, "sessions", &sessions).expect("a small buffer"),
            tokens,
            proposals: words(device, CHOICES * MAX_ROWS, &[]),
            choices: words(device, CHOICES * MAX_ROWS, &[]),
            record: words(device, RECORD * MAX_ROWS, &[]),
            step: Buffer::shared::<Step>(device, "step").expect("a small buffer"),
            ids: words(device, MAX_ROWS, &[]),
            batch: PassRow::buffer(device).expect("a small buffer"),
        }
    }

    fn alone(tokens: &[Token], session: Session) -> Self {
        State::new(&[(SLOT, tokens, session)])
    }

    fn buffers(&self) -> RoundBuffers<'_> {
        let State { turns, sessions, tokens, proposals, .. } = self;
        RoundBuffers { turns, sessions, tokens, proposals }
    }

    /// Sets the turns of a round: the slot of each, its K and its proposer.
    fn take_turns(&self, turns: &[(usize, usize, ProposerKind)]) {
        let turns = turns.iter().map(|&(slot, drafts, proposer)| Turn::new(slot, ROOM * slot, drafts, proposer));
        self.turns.write(self.device, 0, &turns.collect::<Vec<_>>());
    }

    fn propose(&self, turn: usize, first: usize, proposals: &[u32]) {
        self.proposals.write(self.device, 4 * (CHOICES * turn + first) as u64, proposals);
    }

    fn choose(&self, turn: usize, choices: &[u32]) {
        self.choices.write(self.device, 4 * (CHOICES * turn) as u64, choices);
    }

    /// Runs `inputs`.
    fn inputs(&self, role: ModelRole, plan: &PassPlan) -> Inputs {
        for buffer in [&self.step, &self.ids, &self.batch] {
            poison(self.device, buffer);
        }
        let op = BuildInputs::new(self.device, role, self.buffers(), [&self.step, &self.ids, &self.batch]);
        let op = op.expect("buffers");
        op.plan(self.device, plan);
        submit(self.device, |pass| op.encode(pass, plan.rows.len()));
        let step = self.step.read::<Step>(self.device, 0, 1).expect("reading back")[0];
        let mut ids: Vec<u32> = self.ids.read(self.device, 0, MAX_ROWS).expect("reading back");
        let beyond = ids.split_off(plan.rows.len());
        assert!(beyond.into_iter().all(|id| id == POISON), "ids beyond the rows: {plan:?}");
        let rows = self.batch.read(self.device, 0, MAX_ROWS).expect("reading back");
        Inputs { step, ids, rows }
    }

    /// Runs `accept`; returns the tokens that it reports of each of `turns` turns.
    fn accept(&self, turns: usize) -> Vec<Vec<Token>> {
        poison(self.device, &self.record);
        let op = Accept::new(self.device, self.buffers(), &self.choices, &self.record).expect("buffers");
        submit(self.device, |pass| op.encode(pass, turns, MAX_ROWS));
        let records: Vec<u32> = self.record.read(self.device, 0, RECORD * MAX_ROWS).expect("reading back");
        let (used, unused) = records.split_at(RECORD * turns);
        assert!(unused.iter().all(|&word| word == POISON), "a record of no turn");
        let reported = used.chunks(RECORD).map(|record| {
            let (reported, beyond) = record[1..].split_at(record[0] as usize);
            assert!(beyond.iter().all(|&token| token == POISON), "more than is reported: {record:?}");
            reported.to_vec()
        });
        reported.collect()
    }

    fn session(&self, slot: usize) -> Session {
        self.sessions.read(self.device, (slot * size_of::<Session>()) as u64, 1).expect("reading back")[0]
    }

    /// The committed tokens, after checking that none is written beyond them.
    fn tokens(&self, slot: usize) -> Vec<Token> {
        let mut tokens: Vec<Token> =
            self.tokens.read(self.device, (4 * ROOM * slot) as u64, ROOM).expect("reading back");
        let beyond = tokens.split_off(self.session(slot).tokens as usize);
        assert!(beyond.into_iter().all(|token| token == POISON), "tokens beyond the committed ones");
        tokens
    }
}

/// A pass over `rows` rows and `outputs` outputs of the first turn.
fn of_one(rows: usize, outputs: usize, pass_index: usize) -> PassPlan {
    let of = |count| (0..count).map(|index| (0, index)).collect();
    PassPlan { rows: of(rows), outputs: of(outputs), pass_index, mask: MASK }
}

#[test]
fn inputs_by_hand() {
    let session = Session { tokens: 4, target_rows: 3, draft_rows: 2 };
    let state = State::alone(&[50, 51, 52, 53], session);
    state.propose(0, 0, &[60, 61, 62]);
    // The step's start and rows, the ids, and for each output its row and the index of its choice.
    let made = |role, proposer, plan: &PassPlan| {
        state.take_turns(&[(SLOT, 3, proposer)]);
        let Inputs { step, ids, rows } = state.inputs(role, plan);
        let outputs = plan.outputs.len();
        assert_eq!((step.outputs, step.slot), (outputs as u32, SLOT as u32));
        for (index, row) in rows[..plan.rows.len()].iter().enumerate() {
            assert_eq!((row.position, row.slot), (step.start + index as u32, SLOT as u32), "{plan:?}");
        }
        let outputs: Vec<_> = rows[..outputs].iter().map(|row| (row.output, row.choice)).collect();
        (step.start, step.rows, ids, outputs)
    };
    let (parallel, serial) = (ProposerKind::Parallel, ProposerKind::Serial);
    // A parallel draft: the two tokens it has not seen, then masks for d2 and d3; the last token's row gives d1.
    let got = made(ModelRole::Draft, parallel, &of_one(4, 3, 0));
    assert_eq!(got, (2, 4, vec![52, 53, MASK, MASK], vec![(1, 0), (2, 1), (3, 2)]));
    // A surplus row reads one more mask.
    let got = made(ModelRole::Draft, parallel, &of_one(5, 3, 0));
    assert_eq!(got, (2, 5, vec![52, 53, MASK, MASK, MASK], vec![(1, 0), (2, 1), (3, 2)]));
    // An autoregressive draft: what it has not seen gives d1; d1 gives d2, and d2 gives d3.
    assert_eq!(made(ModelRole::Draft, serial, &of_one(2, 1, 0)), (2, 2, vec![52, 53], vec![(1, 0)]));
    assert_eq!(made(ModelRole::Draft, serial, &of_one(1, 1, 1)), (4, 1, vec![60], vec![(0, 1)]));
    assert_eq!(made(ModelRole::Draft, serial, &of_one(1, 1, 2)), (5, 1, vec![61], vec![(0, 2)]));
    // The target: the newest token and all proposals.
    for proposer in [parallel, serial, ProposerKind::LookedUp] {
        let outputs = vec![(0, 0), (1, 1), (2, 2), (3, 3)];
        assert_eq!(made(ModelRole::Target, proposer, &of_one(4, 4, 0)), (3, 4, vec![53, 60, 61, 62], outputs));
    }
    // No draft: one row.
    assert_eq!(made(ModelRole::Target, ProposerKind::LookedUp, &of_one(1, 1, 0)), (3, 1, vec![53], vec![(0, 0)]));
}

/// Three sequences share the draft's passes and the target's: each row is what it would be alone, wherever it stands.
#[test]
fn inputs_of_several_sequences_by_hand() {
    let state = State::new(&[
        (4, &[10, 11, 12], Session { tokens: 3, target_rows: 2, draft_rows: 1 }),
        (0, &[20, 21, 22, 23], Session { tokens: 4, target_rows: 3, draft_rows: 3 }),
        (2, &[30, 31], Session { tokens: 2, target_rows: 1, draft_rows: 0 }),
    ]);
    let (parallel, serial, none) = (ProposerKind::Parallel, ProposerKind::Serial, ProposerKind::LookedUp);
    state.take_turns(&[(4, 2, parallel), (0, 3, serial), (2, 1, none)]);
    state.propose(1, 0, &[70, 71, 72]);
    state.propose(2, 0, &[80]);
    let places = |made: &Inputs, rows: usize| -> Vec<(u32, u32)> {
        made.rows[..rows].iter().map(|row| (row.slot, row.position)).collect()
    };
    let outputs = |made: &Inputs, outputs: usize| -> Vec<(u32, u32)> {
        made.rows[..outputs].iter().map(|row| (row.output, row.choice)).collect()
    };
    // Outputs in the order in which they choose: d1 of both, then d2 of the parallel draft.
    let plan = PassPlan {
        rows: vec![(0, 0), (0, 1), (0, 2), (1, 0)],
        outputs: vec![(0, 0), (1, 0), (0, 1)],
        pass_index: 0,
        mask: MASK,
    };
    let made = state.inputs(ModelRole::Draft, &plan);
    assert_eq!(made.ids, [11, 12, MASK, 23]);
    assert_eq!(places(&made, 4), [(4, 1), (4, 2), (4, 3), (0, 3)]);
    assert_eq!(outputs(&made, 3), [(1, 0), (3, 32), (2, 1)]);
    assert_eq!((made.step.rows, made.step.outputs), (4, 3));
    // The serial draft's second pass.
    let plan = PassPlan { rows: vec![(1, 0)], outputs: vec![(1, 0)], pass_index: 1, mask: MASK };
    let made = state.inputs(ModelRole::Draft, &plan);
    assert_eq!((&made.ids[..], places(&made, 1), outputs(&made, 1)), (&[70][..], vec![(0, 4)], vec![(0, 33)]));
    assert_eq!((made.step.start, made.step.slot), (4, 0), "one sequence's rows stand where the step says");
    // The target's.
    let rows = vec![(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1)];
    state.propose(0, 0, &[60, 61]);
    let plan = PassPlan { outputs: rows.clone(), rows, pass_index: 0, mask: 0 };
    let made = state.inputs(ModelRole::Target, &plan);
    assert_eq!(made.ids, [12, 60, 61, 23, 70, 71, 72, 31, 80]);
    assert_eq!(places(&made, 9), [(4, 2), (4, 3), (4, 4), (0, 3), (0, 4), (0, 5), (0, 6), (2, 1), (2, 2)]);
    let choices = [0, 1, 2, 32, 33, 34, 35, 64, 65];
    assert_eq!(outputs(&made, 9), choices.iter().enumerate().map(|(row, &at)| (row as u32, at)).collect::<Vec<_>>());
}

#[test]
fn accept_commits_what_the_oracle_accepts() {
    let mut random = Random::new(71);
    let kinds = [ProposerKind::Parallel, ProposerKind::Serial, ProposerKind::LookedUp];
    for drafts in 0..=MAX_DRAFTS {
        for agreeing in 0..=drafts {
            let known = 1 + random.below(40);
            let committed: Vec<Token> = random.indices(known, 1000);
            let session = Session { tokens: known as u32, target_rows: known as u32 - 1, draft_rows: 0 };
            // A turn of each kind in one round.
            let state = State::new(&[0, 1, 2].map(|slot| (slot, &committed[..], session)));
            state.take_turns(&[0, 1, 2].map(|slot| (slot, drafts, kinds[slot])));
            let proposals: Vec<Token> = random.indices(drafts, 1000);
            let mut choices = proposals.clone();
            choices.push(7000);
            // After the first disagreement some may agree again; they are no longer wanted.
            if agreeing < drafts {
                choices[agreeing] += 5000;
            }
            for turn in 0..3 {
                state.propose(turn, 0, &proposals);
                state.choose(turn, &choices);
            }
            let kept = state.accept(3);
            for (slot, kept) in kept.into_iter().enumerate() {
                let context = format!("K = {drafts}, {agreeing} agree, {:?}", kinds[slot]);
                assert_eq!(kept, accept(&proposals, &choices), "{context}");
                assert_eq!(kept.len(), agreeing + 1, "{context}");
                assert_eq!(state.tokens(slot), [&committed[..], &kept].concat(), "{context}");
                let draft_rows = match (drafts, kinds[slot]) {
                    (0, _) | (_, ProposerKind::LookedUp) => 0,
                    (_, ProposerKind::Parallel) => known,
                    (_, ProposerKind::Serial) => (known + drafts - 1).min(known + agreeing),
                };
                let [tokens, target_rows, draft_rows] =
                    [known + agreeing + 1, known + agreeing, draft_rows].map(|count| count as u32);
                assert_eq!(state.session(slot), Session { tokens, target_rows, draft_rows }, "{context}");
                let host = session.after(kinds[slot], drafts as u32, agreeing as u32 + 1);
                assert_eq!(state.session(slot), host, "{context}: the host has the same rule");
            }
            assert_eq!(state.session(SLOT).tokens, 7, "a slot without a turn");
        }
    }
}

/// A toy model whose cache goes where the device's steps say.
struct Follower<'a> {
    next: Next<'a>,
    cache: Vec<Token>,
}

impl Follower<'_> {
    /// The choices of the pass's outputs, and the index of the first.
    fn forward(&mut self, Inputs { step, ids, rows }: Inputs) -> (usize, Vec<Token>) {
        let [start, first, outputs] = [step.start, rows[0].output, step.outputs].map(|count| count as usize);
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
        (rows[0].choice as usize, choices)
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
    let state = State::alone(&prompt, Session { tokens: prompt.len() as u32, target_rows: seen, draft_rows: seen });
    let follower = |next: Next<'static>| Follower { next, cache: prompt[..seen as usize].to_vec() };
    let mut target = follower(Box::new(move |tokens| target_next(seed, tokens)));
    let mut draft = follower(Box::new(move |tokens| draft_next(seed, quality, tokens)));
    let proposer = match method {
        None => ProposerKind::LookedUp,
        Some(Method::Pard) => ProposerKind::Parallel,
        Some(Method::Vsd) => ProposerKind::Serial,
    };
    state.take_turns(&[(SLOT, drafts, proposer)]);
    for round in 0..5 {
        let session = state.session(SLOT);
        let unseen = (session.tokens - session.draft_rows) as usize;
        let passes = match method {
            None => vec![],
            Some(Method::Pard) => vec![(0, unseen + drafts - 1 + surplus)],
            Some(Method::Vsd) => {
                (0..drafts).map(|index| (index, if index == 0 { unseen } else { 1 } + surplus)).collect()
            }
        };
        for (index, rows) in passes {
            let outputs = if proposer == ProposerKind::Parallel { drafts } else { 1 };
            let (at, proposed) = draft.forward(state.inputs(ModelRole::Draft, &of_one(rows, outputs, index)));
            state.propose(0, at, &proposed);
        }
        let rows = (session.tokens - session.target_rows) as usize + drafts + surplus;
        let (at, chosen) = target.forward(state.inputs(ModelRole::Target, &of_one(rows, drafts + 1, 0)));
        assert_eq!(at, 0);
        state.choose(0, &chosen);
        let kept = state.accept(1).remove(0);

        assert_eq!(kept, toy.round(), "{context}, round {round}");
        assert_eq!(state.tokens(SLOT), toy.tokens, "{context}, round {round}");
        let session = state.session(SLOT);
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
