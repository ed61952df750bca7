//! `penalties` and `token_counts` on the device.

use pard_engine::gpu::Buffer;
use pard_engine::ops::{BANNED, MAX_ROWS, Penalties, PenaltyTerms, Session, Step, TokenCounts};

use super::{compare, input, output, read, step, submit, words};
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
            let known = (text.prompt.len() + answer) as u32;
            // The newest committed token's row gives the first output; rows before it may be fed as well.
            let first_output = known.min(3) - 1;
            let step = step(
                device,
                Step { start: known - 1 - first_output, first_output, rows: 20, outputs: 17, ..Step::default() },
            );
            let session = Session { tokens: known, ..Session::default() };
            let session = Buffer::with_values(device, "session", &[session]).expect("a small buffer");
            let counts = Buffer::with_values(device, "counts", &TokenCounts::of_text(&text.prompt, &[], room));
            let counts = counts.expect("a small buffer");
            // Rounds of 5 tokens count the answer.
            for round in text.answer.chunks(5) {
                let record = words(device, 18, &[&[round.len() as u32], round].concat());
                let op = TokenCounts::new(device, &record, &counts).expect("buffers");
                submit(device, |pass| op.encode(pass, 17));
            }
            let proposals = words(device, 32, &text.proposals);
            let biases: Vec<f32> = (0..room as u32).map(|id| bias_of(id).unwrap_or(BANNED)).collect();
            let bias = Buffer::with_values(device, "bias", &biases).expect("a small buffer");
            let logits = random.normals(MAX_ROWS * vocab, 3.0);
            let (on_device, adjusted) = (input(device, vocab, &logits), output(device, MAX_ROWS, vocab));
            let Terms { repetition, presence, frequency } = terms;
            let operands = PenaltyTerms {
                session: &session,
                proposals: &proposals,
                counts: &counts,
                bias: &bias,
                repetition,
                presence,
                frequency,
            };
            let vocabulary = words(device, vocab, &ids);
            let vocabulary = Some(&vocabulary).filter(|_| listed);
            let op = Penalties::new(device, &step, operands, first_row, [&on_device, &adjusted], vocab, vocabulary);
            let op = op.expect("shapes that fit");
            submit(device, |pass| op.encode(pass, rows));
            let got = read(device, "penalties", &adjusted, first_row + rows);
            assert!(got[..first_row * vocab].iter().all(|value| value.is_nan()), "rows before the first");
            for row in first_row..first_row + rows {
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
    let counts =
        Buffer::with_values(device, "counts", &TokenCounts::of_text(&[3, 1, 3, 99], &[], 10)).expect("a buffer");
    let record = words(device, 18, &[3, 3, 7, 7, 5, 5]);
    let op = TokenCounts::new(device, &record, &counts).expect("buffers");
    submit(device, |pass| op.encode(pass, 17));
    let counted: Vec<u32> = counts.read(device, 0, 10).expect("reading back");
    assert_eq!(counted, [0, 1, 0, 3, 0, 0, 0, 4, 0, 0]);
    assert_eq!(counted, TokenCounts::of_text(&[3, 1, 3, 99], &[3, 7, 7], 10), "the host counts likewise");
}
