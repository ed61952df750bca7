//! `argmax` and `argmax_merge` on the device.

use pard_engine::gpu::{Buffer, Device};
use pard_engine::ops::{Argmax, BatchRow, Draw, DrawParams, MAX_ROWS, Rows, Step};

use super::{POISON, input, row_counts, step, submit, words};
use crate::oracle::argmax::argmax;
use crate::oracle::gumbel::gumbel;
use crate::support::gpu::device;
use crate::support::random::Random;

/// Around one, two and many sections of 2048, and odd ones.
const VOCABS: [usize; 10] = [1, 2, 63, 65, 307, 2047, 2048, 2049, 4099, 10007];

/// The choices of all rows of `logits`, `[rows, vocab]`, among the first `limit` ids.
pub fn run(device: &Device, logits: &[f32], vocab: usize, limit: usize, first_choice: usize) -> Vec<u32> {
    run_listed(device, logits, vocab, limit, None, first_choice)
}

/// Likewise, of logits that are those of the tokens `vocabulary` only.
fn run_listed(
    device: &Device,
    logits: &[f32],
    vocab: usize,
    limit: usize,
    vocabulary: Option<&[u32]>,
    first_choice: usize,
) -> Vec<u32> {
    let rows = logits.len() / vocab;
    let step_values = Step { outputs: rows as u32, first_choice: first_choice as u32, rows: 7, ..Step::default() };
    let (step, choices) = (step(device, step_values), words(device, 64, &[]));
    let logits = input(device, vocab, logits);
    let vocabulary = vocabulary.map(|ids| words(device, ids.len(), ids));
    let op = Argmax::new(device, &step, &logits, limit, vocabulary.as_ref(), &choices).expect("shapes that fit");
    submit(device, |pass| op.encode(pass, rows));
    let all: Vec<u32> = choices.read(device, 0, 64).expect("reading back");
    let beyond = all[..first_choice].iter().chain(&all[first_choice + rows..]);
    assert!(beyond.copied().all(|choice| choice == POISON), "a choice that nobody asked for: {all:?}");
    all[first_choice..][..rows].to_vec()
}

fn limited(logits: &[f32], vocab: usize, limit: usize) -> Vec<u32> {
    let kept: Vec<f32> = logits.chunks(vocab).flat_map(|row| &row[..limit]).copied().collect();
    argmax(&kept, limit)
}

fn agrees(context: &str, logits: &[f32], vocab: usize, limit: usize, first_choice: usize) {
    let (got, expected) = (run(device(), logits, vocab, limit, first_choice), limited(logits, vocab, limit));
    assert_eq!(got, expected, "{context}, {limit} of {vocab} ids, {}", device().name());
}

#[test]
fn argmax_is_the_largest_logit_of_every_row() {
    let mut random = Random::new(41);
    for vocab in VOCABS {
        for rows in row_counts() {
            agrees("random", &random.normals(rows * vocab, 3.0), vocab, vocab, rows % 5);
            let negative: Vec<f32> = random.normals(rows * vocab, 3.0).iter().map(|x| -1e3 - x.abs()).collect();
            agrees("negative", &negative, vocab, vocab, 0);
        }
    }
}

#[test]
fn of_a_list_of_tokens_the_chosen_one_is_given() {
    let mut random = Random::new(44);
    for (vocab, limit) in [(1, 1), (63, 63), (307, 300), (2049, 2049), (4099, 4099)] {
        let vocabulary: Vec<u32> = (0..vocab as u32).map(|index| 11 * index + 5).collect();
        for rows in [1, 5, 32] {
            let logits = random.normals(rows * vocab, 3.0);
            let got = run_listed(device(), &logits, vocab, limit, Some(&vocabulary), 2);
            let expected = limited(&logits, vocab, limit).into_iter().map(|index| vocabulary[index as usize]);
            assert_eq!(got, expected.collect::<Vec<_>>(), "{limit} of {vocab} tokens, {}", device().name());
        }
    }
}

#[test]
fn the_lowest_of_equals_wins() {
    let mut random = Random::new(42);
    for vocab in VOCABS {
        agrees("all equal", &vec![-2.5; 3 * vocab], vocab, vocab, 0);
        agrees("all zero", &vec![0.0; 3 * vocab], vocab, vocab, 0);
        for rows in [1, 8, 32] {
            // Few distinct values: hundreds of equals, within lanes, across lanes and across sections.
            let few: Vec<f32> = (0..rows * vocab).map(|_| random.below(3) as f32 - 5.0).collect();
            agrees("few values", &few, vocab, vocab, 0);
            let signs: Vec<f32> = (0..rows * vocab).map(|_| if random.below(2) == 0 { 0.0 } else { -0.0 }).collect();
            agrees("zeros of both signs", &signs, vocab, vocab, 0);
        }
    }
}

#[test]
fn the_largest_is_found_wherever_it_stands() {
    let vocab = 4099;
    for places in [[0, 1, 63, 64], [65, 127, 2047, 2048], [2049, 2111, 4095, 4096], [4097, 4098, 4000, 3000]] {
        let mut logits = vec![-7.0; 4 * vocab];
        for (row, place) in places.into_iter().enumerate() {
            logits[row * vocab + place] = -6.5;
        }
        assert_eq!(run(device(), &logits, vocab, vocab, 0), places.map(|place| place as u32));
    }
}

#[test]
fn ids_at_or_past_the_limit_are_never_chosen() {
    let mut random = Random::new(43);
    for (vocab, limit) in [(307, 1), (307, 306), (2049, 2048), (4099, 2048), (4099, 2049), (4099, 4098), (10007, 5000)]
    {
        for rows in [1, 13, 32] {
            let mut logits = random.normals(rows * vocab, 1.0);
            for row in logits.chunks_mut(vocab) {
                row[limit..].iter_mut().for_each(|logit| *logit += 100.0);
            }
            agrees("limited", &logits, vocab, limit, 3);
        }
    }
}

/// A sampler's mask or a broken model may leave such values: infinities must not hide a number.
#[test]
fn extreme_logits_are_ordered_too() {
    let lowest = f32::MIN;
    agrees("largest", &[lowest, f32::MAX, 0.0, f32::MAX], 4, 4, 0);
    agrees("lowest of all", &[lowest, lowest, lowest], 3, 3, 0);
    agrees("tiny", &[-1.0, 1e-30, 1e-31, -1e-30], 4, 4, 0);
    let mut logits = vec![f32::NEG_INFINITY; 3000];
    logits[2500] = -1e30;
    agrees("minus infinity", &logits, 3000, 3000, 0);
}

/// Choices of a batch's rows: the largest of `logit + temperature * noise`, as far as f32 can tell.
#[test]
fn noise_is_of_the_seed_the_position_and_the_id() {
    let mut random = Random::new(44);
    let room = Rows::buffer(device()).expect("a small buffer");
    for (vocab, limit) in [(1, 1), (307, 306), (2049, 2049), (10007, 10000)] {
        let rows: Vec<BatchRow> = (0..MAX_ROWS as u32)
            .map(|row| BatchRow {
                position: [row, random.bits() as u32 >> 8][row as usize % 2],
                slot: 0,
                seed: [random.bits() as u32, 1][row as usize / 2 % 2],
                temperature: [0.0, 0.3, 1.0, 20.0][row as usize / 4 % 4],
            })
            .collect();
        let logits = random.normals(MAX_ROWS * vocab, 3.0);
        let (step, choices) =
            (step(device(), Step { outputs: 32, rows: 32, ..Step::default() }), words(device(), 64, &[]));
        room.write(device(), 0, &rows);
        let on_device = input(device(), vocab, &logits);
        let many = Rows::Many { step: &step, batch: &room };
        let op = Argmax::new(device(), many, &on_device, limit, None, &choices).expect("shapes that fit");
        submit(device(), |pass| op.encode(pass, MAX_ROWS));
        let chosen: Vec<u32> = choices.read(device(), 0, MAX_ROWS).expect("reading back");
        for ((row, &BatchRow { position, seed, temperature, .. }), &id) in rows.iter().enumerate().zip(&chosen) {
            assert!((id as usize) < limit, "row {row}: {id} of {limit}");
            let draw = DrawParams { temperature, seed };
            is_drawn(&format!("row {row}"), &logits[row * vocab..][..limit], None, draw, position + 1, id as usize);
        }
    }
}

/// Fails unless the token at `index` is the largest of `logit + temperature * noise`, as far as f32 can tell.
#[track_caller]
fn is_drawn(context: &str, logits: &[f32], ids: Option<&[u32]>, draw: DrawParams, position: u32, index: usize) {
    let DrawParams { temperature, seed } = draw;
    let noised = |index: usize| {
        let id = ids.map_or(index as u32, |ids| ids[index]);
        let (noise, bound) = gumbel(seed, position, id);
        let (value, off) = (f64::from(logits[index]) + f64::from(temperature) * noise, f64::from(temperature) * bound);
        (value, off + value.abs() * 2f64.powi(-23))
    };
    let (value, off) = noised(index);
    let surely = (0..logits.len()).map(noised).map(|(value, off)| value - off).fold(f64::MIN, f64::max);
    assert!(
        value + off >= surely,
        "{context}, {position} of {seed} at {temperature}: {index} has {value} ± {off}, another {surely} at least"
    );
}

/// Choices of one sequence's rows: the output rows of a step stand one after the other; a token's noise is its id's, also
/// where the logits are those of some tokens only.
#[test]
fn noise_of_a_sequence_is_of_the_rows_positions() {
    let mut random = Random::new(45);
    for (vocab, limit, listed) in [(307, 306, false), (2049, 2049, true), (4099, 4000, false), (307, 300, true)] {
        let ids: Vec<u32> = (0..vocab as u32).map(|index| 7 * index + 3).collect();
        let vocabulary = words(device(), vocab, &ids);
        for (temperature, start, rows, first_output) in [(0.7, 0, 1, 0), (1.0, 90, 9, 0), (3.0, 5, 20, 4)] {
            let draw = DrawParams { temperature, seed: random.bits() as u32 };
            let params = Buffer::uniform(device(), "draw", &draw).expect("a small buffer");
            let outputs = rows - first_output;
            let logits = random.normals(outputs * vocab, 3.0);
            let [start, rows, first_output] = [start, rows as u32, first_output as u32];
            let step_values =
                Step { start, rows, first_output, outputs: outputs as u32, first_choice: 2, ..Step::default() };
            let (step, choices) = (step(device(), step_values), words(device(), 64, &[]));
            let (on_device, vocabulary) = (input(device(), vocab, &logits), Some(&vocabulary).filter(|_| listed));
            let draw_by = Draw { noise: Some(&params), thresholds: None, first_row: 0 };
            let op = Argmax::drawing(device(), &step, draw_by, &on_device, limit, vocabulary, &choices);
            let op = op.expect("shapes that fit");
            submit(device(), |pass| op.encode(pass, outputs));
            let chosen: Vec<u32> = choices.read(device(), 8, outputs).expect("reading back");
            for (row, &id) in chosen.iter().enumerate() {
                let index = if listed { ids.iter().position(|&known| known == id) } else { Some(id as usize) };
                let index = index.filter(|&index| index < limit).unwrap_or_else(|| panic!("{id} may not be chosen"));
                let logits = &logits[row * vocab..][..limit];
                let position = start + first_output + row as u32 + 1;
                is_drawn(&format!("row {row}"), logits, listed.then_some(&ids), draw, position, index);
            }
        }
    }
}
