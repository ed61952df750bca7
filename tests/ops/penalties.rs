//! `penalties` and `token_counts` on the device.

use pard::low_level::gpu::Buffer;
use pard::low_level::ops::{
    BANNED, CHOICES, MAX_ROWS, PassRow, Penalties, PenaltyTerms, ProposerKind, RECORD, Session, TokenCounts, Turn,
    TurnSampling,
};

use super::{compare, input, output, outputs, read, same_bits, sampling, submit, words};
use crate::oracle::penalties::{Terms, penalties};
use crate::support::gpu::device;
use crate::support::random::Random;

/// Less than a workgroup, no multiple of one, and more than one.
const VOCABS: [usize; 5] = [1, 63, 65, 307, 4099];

fn bias_of(id: u32) -> Option<f32> {
    match id % 7 {
        0 => None,
        1 => Some(2.5),
        2 => Some(-0.75),
        _ => Some(0.0),
    }
}

/// A text whose tokens repeat: prompt, committed answer, and proposals behind it.
struct Text {
    prompt: Vec<u32>,
    answer: Vec<u32>,
    proposals: Vec<u32>,
}

impl Text {
    fn new(random: &mut Random, vocab: usize, answer: usize) -> Text {
        let mut some = |count| random.indices(count, vocab.min(40));
        Text { prompt: some(12), answer: some(answer), proposals: some(16) }
    }
}

#[test]
fn every_row_counts_what_stands_before_it() {
    let (mut random, device) = (Random::new(81), device());
    let all_terms = [
        Terms { repetition: 1.3, presence: 0.0, frequency: 0.0 },
        Terms { repetition: 1.0, presence: 0.6, frequency: -0.25 },
        Terms { repetition: 0.8, presence: -1.5, frequency: 0.7 },
    ];
    for (index, vocab) in VOCABS.into_iter().enumerate() {
        for (terms, rows, first_row, answer) in
            [(all_terms[0], 1, 0, 0), (all_terms[1], 17, 0, 30), (all_terms[2], 1, 5, 9), (all_terms[2], 3, 0, 1)]
        {
            let text = Text::new(&mut random, vocab, answer);
            let listed = index % 2 == 1;
            let ids: Vec<u32> = (0..vocab as u32).map(|at| if listed { 2 * at + 1 } else { at }).collect();
            let room = 2 * vocab + 1;
            let known = text.prompt.len() + answer;
            // The sequence is in slot 1 and has turn 2; the newest committed token's row gives its first output, and rows
            // before it are fed as well. The outputs behind its own are another's, which asks for nothing.
            let (slot, turn, before) = (1, 2, known.min(3) - 1);
            let own = first_row + rows;
            let batch = outputs(device, |row| PassRow {
                position: (known - 1 - before + row) as u32,
                slot,
                output: ((before + row) % MAX_ROWS) as u32,
                choice: (if row < own { CHOICES * turn + row } else { CHOICES }) as u32,
            });
            let Terms { repetition, presence, frequency } = terms;
            let changes = TurnSampling::BIASES + TurnSampling::PENALTIES;
            let turns = [
                TurnSampling::default(),
                TurnSampling::default(),
                TurnSampling { repetition, presence, frequency, changes, ..TurnSampling::default() },
            ];
            let sampling = sampling(device, &turns);
            let sessions = [Session::default(), Session { tokens: known as u32, ..Session::default() }];
            let sessions = Buffer::with_values(device, "sessions", &sessions).expect("a small buffer");
            let counted = TokenCounts::of_text(&text.prompt, &[], room);
            let counts = Buffer::with_values(device, "counts", &[vec![7; room], counted].concat());
            let counts = counts.expect("a small buffer");
            let turn_buffer = Turn::buffer(device).expect("a small buffer");
            turn_buffer.write(device, 0, &[Turn::new(slot as usize, 0, 0, ProposerKind::LookedUp); 3]);
            // Rounds of 5 tokens count the answer.
            for round in text.answer.chunks(5) {
                let report = [&[round.len() as u32], round].concat();
                let record = words(device, 3 * RECORD, &[&vec![1; 2 * RECORD][..], &report].concat());
                let op = TokenCounts::new(device, [&turn_buffer, &sampling], &record, &counts, room).expect("buffers");
                submit(device, |pass| op.encode(pass, 3, 17));
            }
            let proposals = words(device, 3 * CHOICES, &[&[0; 2 * CHOICES][..], &text.proposals].concat());
            let biases: Vec<f32> = (0..room as u32).map(|id| bias_of(id).unwrap_or(BANNED)).collect();
            let bias = Buffer::with_values(device, "bias", &[vec![9.0; room], biases].concat());
            let bias = bias.expect("a small buffer");
            let logits = random.normals(MAX_ROWS * vocab, 3.0);
            let (on_device, adjusted) = (input(device, vocab, &logits), output(device, MAX_ROWS, vocab));
            let operands = PenaltyTerms {
                batch: &batch,
                sampling: &sampling,
                sessions: &sessions,
                proposals: &proposals,
                counts: &counts,
                bias: &bias,
                ids: room,
            };
            let vocabulary = words(device, vocab, &ids);
            let vocabulary = Some(&vocabulary).filter(|_| listed);
            let op = Penalties::new(device, operands, first_row, [&on_device, &adjusted], vocab, vocabulary);
            let op = op.expect("shapes that fit");
            submit(device, |pass| op.encode(pass, rows + 1));
            let got = read(device, "penalties", &adjusted, own + 1);
            assert!(got[..first_row * vocab].iter().all(|value| value.is_nan()), "rows before the first");
            same_bits("a row without penalties", &got[own * vocab..], &logits[own * vocab..][..vocab]);
            for row in first_row..own {
                let answer = [&text.answer[..], &text.proposals[..row]].concat();
                let logits = &logits[row * vocab..][..vocab];
                let expected = penalties(logits, &ids, &text.prompt, &answer, &bias_of, terms);
                let context =
                    format!("row {row} of {rows}, {vocab} tokens, {answer:?} after {:?}, {terms:?}", text.prompt);
                compare(device, "penalties", &context, &got[row * vocab..][..vocab], &expected);
            }
        }
    }
}

#[test]
fn a_round_counts_its_tokens_and_no_others() {
    let device = device();
    let first = TokenCounts::of_text(&[3, 1, 3, 99], &[], 10);
    let counts = Buffer::with_values(device, "counts", &[&[5; 10][..], &first].concat()).expect("a buffer");
    let report = [&[2, 9, 9][..], &[0; RECORD - 3], &[3, 3, 7, 7, 5, 5]].concat();
    let record = words(device, 2 * RECORD, &report);
    let turns = Turn::buffer(device).expect("a small buffer");
    turns.write(device, 0, &[0, 1].map(|slot| Turn::new(slot, 0, 0, ProposerKind::LookedUp)));
    // Only the second turn asks for it.
    let asking = TurnSampling { changes: TurnSampling::PENALTIES, ..TurnSampling::default() };
    let biased = TurnSampling { changes: TurnSampling::BIASES, ..TurnSampling::default() };
    let sampling = sampling(device, &[biased, asking]);
    let op = TokenCounts::new(device, [&turns, &sampling], &record, &counts, 10).expect("buffers");
    submit(device, |pass| op.encode(pass, 2, 17));
    let counted: Vec<u32> = counts.read(device, 0, 20).expect("reading back");
    assert_eq!(counted, [[5; 10], [0, 1, 0, 3, 0, 0, 0, 4, 0, 0]].concat());
    assert_eq!(counted[10..], TokenCounts::of_text(&[3, 1, 3, 99], &[3, 7, 7], 10), "the host counts likewise");
}
