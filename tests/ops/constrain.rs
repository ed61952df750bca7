//! `constrain` on the device.

use pard::low_level::ops::{CHOICES, Constrain, MAX_ROWS, PassRow, TurnSampling};

use super::{output, outputs, read, same_bits, sampling, submit, words};
use crate::support::gpu::device;
use crate::support::random::Random;

/// Less than a word of a mask and than a workgroup, multiples of neither, and more than one of each.
const VOCABS: [usize; 5] = [1, 31, 65, 307, 4099];

#[test]
fn forbidden_tokens_have_the_lowest_logit_and_the_others_keep_theirs() {
    let (mut random, device) = (Random::new(83), device());
    for (index, vocab) in VOCABS.into_iter().enumerate() {
        for (rows, first_row) in [(1, 0), (17, 0), (3, 5)] {
            let listed = index % 2 == 1;
            let ids: Vec<u32> = (0..vocab as u32).map(|at| if listed { 3 * at + 1 } else { at }).collect();
            let room = 3 * vocab + 2;
            let own = first_row + rows;
            // Turn 2 has a grammar; the row behind its own is of turn 1, which has none.
            let batch = outputs(device, |row| PassRow {
                position: row as u32,
                slot: 0,
                output: row as u32,
                choice: (CHOICES * if row < own { 2 } else { 1 }) as u32,
            });
            let constrained = TurnSampling { changes: TurnSampling::GRAMMAR, ..TurnSampling::default() };
            let penalised = TurnSampling { changes: TurnSampling::PENALTIES, ..TurnSampling::default() };
            let sampling = sampling(device, &[penalised, penalised, constrained]);
            let mask: Vec<u32> = random.indices(MAX_ROWS * Constrain::words(room), 1 << 30);
            let mask: Vec<u32> = mask.into_iter().map(|word| word.wrapping_mul(0x9e37_79b9)).collect();
            let masks = words(device, mask.len(), &mask);
            let logits = random.normals(MAX_ROWS * vocab, 3.0);
            let scores = output(device, MAX_ROWS, vocab);
            scores.buffer.write(device, 0, &logits);
            let vocabulary = words(device, vocab, &ids);
            let vocabulary = Some(&vocabulary).filter(|_| listed);
            let op = Constrain::new(device, [&batch, &sampling], &masks, room, first_row, &scores, vocab, vocabulary);
            let op = op.expect("shapes that fit");
            submit(device, |pass| op.encode(pass, rows + 1));
            let got = read(device, "constrain", &scores, MAX_ROWS);
            let expected: Vec<f32> = (0..MAX_ROWS * vocab)
                .map(|at| {
                    let (row, id) = (at / vocab, ids[at % vocab] as usize);
                    let allowed = mask[row * Constrain::words(room) + id / 32] >> (id % 32) & 1 == 1;
                    if allowed || !(first_row..own).contains(&row) { logits[at] } else { f32::MIN }
                })
                .collect();
            same_bits(&format!("{rows} rows from {first_row} on, {vocab} tokens"), &got, &expected);
        }
    }
}
