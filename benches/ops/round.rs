//! `inputs` and `accept`: one workgroup each, so what they take is what any dispatch takes.

use pard::Result;
use pard::low_level::gpu::Buffer;
use pard::low_level::ops::{
    Accept, BuildInputs, ModelRole, PassPlan, PassRow, ProposerKind, RECORD, RoundBuffers, Session, Step, Turn,
};

use crate::bench::{Bench, Case, MAX_REPETITIONS, each};
use crate::oracle;

/// Tokens of a draft.
const DRAFTS: usize = 8;
/// The mask token.
const MASK: u32 = 7;
/// Tokens that are committed, and how many of them draft and target have seen.
const SESSION: Session = Session { tokens: 100, target_rows: 99, draft_rows: 95 };

/// The buffers of a session, with d1 .. dK and t0 .. tK; the target agrees with all but the last draft.
struct Buffers {
    turns: Buffer,
    session: Buffer,
    tokens: Buffer,
    proposals: Buffer,
    choices: Buffer,
    record: Buffer,
}

/// d1 .. dK.
fn proposals() -> Vec<u32> {
    (1000..).take(DRAFTS).collect()
}

/// t0 .. tK.
fn choices() -> Vec<u32> {
    (1000..).take(DRAFTS - 1).chain([5, 6]).collect()
}

impl Buffers {
    fn new(bench: &Bench) -> Result<Buffers> {
        let device = &bench.device;
        // Each repetition of `accept` commits a round more.
        let tokens: Vec<u32> = (0..SESSION.tokens + (MAX_REPETITIONS * (DRAFTS + 1)) as u32).collect();
        let turns = Turn::buffer(device)?;
        turns.write(device, 0, &[Turn::new(0, 0, DRAFTS, ProposerKind::Parallel)]);
        Ok(Buffers {
            turns,
            session: Buffer::with_values(device, "session", &[SESSION])?,
            tokens: Buffer::with_values(device, "tokens", &tokens)?,
            proposals: Buffer::with_values(device, "proposals", &proposals())?,
            choices: Buffer::with_values(device, "choices", &choices())?,
            record: Buffer::storage(device, "record", 4 * RECORD as u64)?,
        })
    }

    fn all(&self) -> RoundBuffers<'_> {
        let Buffers { turns, session, tokens, proposals, .. } = self;
        RoundBuffers { turns, sessions: session, tokens, proposals }
    }
}

fn case<'a>(kernel: &'static str, what: &str, rows: usize, bytes: usize, session: &'a Buffer) -> Case<'a> {
    let state = (session, bytemuck::bytes_of(&SESSION).to_vec());
    Case { kernel, what: what.to_owned(), rows, bytes, flops: 0, state, record: Box::new(|_, _| Ok(())) }
}

/// The rows of a parallel draft and of a verification.
pub fn inputs(bench: &Bench) -> Result<()> {
    if !bench.wants("inputs") {
        return Ok(());
    }
    let (device, buffers) = (&bench.device, Buffers::new(bench)?);
    let known = |range: std::ops::Range<u32>| range.collect::<Vec<u32>>();
    let draft_ids = [known(SESSION.draft_rows..SESSION.tokens), vec![MASK; DRAFTS - 1]].concat();
    let target_ids = [known(SESSION.target_rows..SESSION.tokens), proposals()].concat();
    let ids = Buffer::storage(device, "ids", 64 * 4)?;
    for (whose, start, outputs, expected) in [
        (ModelRole::Draft, SESSION.draft_rows, DRAFTS, draft_ids),
        (ModelRole::Target, SESSION.target_rows, DRAFTS + 1, target_ids),
    ] {
        let rows = expected.len();
        let batch = PassRow::buffer(device)?;
        let op = BuildInputs::new(device, whose, buffers.all(), [&bench.step, &ids, &batch])?;
        let of_turn = |count| (0..count).map(|index| (0, index)).collect();
        op.plan(device, &PassPlan { rows: of_turn(rows), outputs: of_turn(outputs), pass_index: 0, mask: MASK });
        let case = Case {
            record: each(|pass| op.encode(pass, rows)),
            ..case("inputs", &format!("{whose:?}"), rows, rows * 24 + size_of::<Step>() + 12, &buffers.session)
        };
        let actual: Vec<u32> = bench.result(&case, &ids, rows)?;
        assert_eq!(actual, expected, "inputs, ids of {whose:?}");
        let step = Step { start, rows: rows as u32, outputs: outputs as u32, ..Step::default() };
        assert_eq!(bench.step.read::<Step>(device, 0, 1)?, [step], "inputs, step of {whose:?}");
        bench.time(&[case])?;
    }
    Ok(())
}

/// A verdict on a draft of which all but the last token are accepted.
pub fn accept(bench: &Bench) -> Result<()> {
    if !bench.wants("accept") {
        return Ok(());
    }
    let (device, buffers) = (&bench.device, Buffers::new(bench)?);
    let op = Accept::new(device, buffers.all(), &buffers.choices, &buffers.record)?;
    let committed = oracle::accept::accept(&proposals(), &choices());
    let bytes = 4 * (DRAFTS * 2 + 2 * committed.len()) + 2 * size_of::<Session>();
    let case = Case {
        record: each(|pass| op.encode(pass, 1, DRAFTS + 1)),
        ..case("accept", &format!("{} of {DRAFTS} drafts", committed.len() - 1), 1, bytes, &buffers.session)
    };
    let actual: Vec<u32> = bench.result(&case, &buffers.record, committed.len() + 1)?;
    assert_eq!(actual, [vec![committed.len() as u32], committed.clone()].concat(), "accept");
    let tokens: Vec<u32> = buffers.tokens.read(device, u64::from(SESSION.tokens) * 4, committed.len())?;
    assert_eq!(tokens, committed, "accept, tokens");
    let known = SESSION.tokens + committed.len() as u32;
    let session = Session { tokens: known, target_rows: known - 1, draft_rows: SESSION.tokens };
    assert_eq!(buffers.session.read::<Session>(device, 0, 1)?, [session], "accept, session");
    bench.time(&[case])
}
