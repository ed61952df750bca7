//! `argmax` and `argmax_merge` on the device.

use pard::low_level::gpu::Device;
use pard::low_level::ops::{Argmax, CHOICES, Draw, MAX_ROWS, ModelRole, PassRow, Step, TurnSampling};

use super::{POISON, input, outputs, row_counts, sampling, step, submit, words};
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
    let step_values = Step { outputs: rows as u32, rows: 7, ..Step::default() };
    let (step, choices) = (step(device, step_values), words(device, 64, &[]));
    let batch = outputs(device, |row| PassRow { choice: (first_choice + row) as u32, ..PassRow::default() });
    let logits = input(device, vocab, logits);
    let vocabulary = vocabulary.map(|ids| words(device, ids.len(), ids));
    let op = Argmax::new(device, [&step, &batch], None, 0, &logits, limit, vocabulary.as_ref(), &choices);
    let op = op.expect("shapes that fit");
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

/// Choices of drawn rows: the largest of `logit + temperature * noise`, as far as f32 can tell. A row's noise is that of its
/// turn's seed, of the position behind its own, and of the token's id, also where the logits are those of some tokens only.
/// Outputs may be any rows of the pass.
#[test]
fn noise_is_of_the_seed_the_position_and_the_id() {
    let mut random = Random::new(44);
    for (index, (vocab, limit)) in [(1, 1), (307, 306), (2049, 2049), (10007, 10000)].into_iter().enumerate() {
        let turns: Vec<TurnSampling> = (0..MAX_ROWS)
            .map(|turn| TurnSampling {
                seed: [random.bits() as u32, 1][turn / 2 % 2],
                draft_seed: random.bits() as u32,
                temperature: [0.0, 0.3, 1.0, 20.0][turn / 4 % 4],
                ..TurnSampling::default()
            })
            .collect();
        let positions: Vec<u32> = (0..MAX_ROWS).map(|row| [row as u32, random.bits() as u32 >> 8][row % 2]).collect();
        // Output r is row 7 r of the pass, and the second of its turn.
        let row_of = |output: usize| 7 * output % MAX_ROWS;
        let turn_of = |output: usize| (output + 3) % MAX_ROWS;
        let batch = outputs(device(), |row| PassRow {
            position: positions[row],
            slot: 0,
            output: row_of(row) as u32,
            choice: (turn_of(row) * CHOICES + 1) as u32,
        });
        let sampling = sampling(device(), &turns);
        let logits = random.normals(MAX_ROWS * vocab, 3.0);
        let on_device = input(device(), vocab, &logits);
        let ids: Vec<u32> = (0..vocab as u32).map(|at| if index % 2 == 1 { 7 * at + 3 } else { at }).collect();
        let vocabulary = words(device(), vocab, &ids);
        let vocabulary = Some(&vocabulary).filter(|_| index % 2 == 1);
        let step = step(device(), Step { outputs: 32, rows: 32, ..Step::default() });
        for (role, first) in [(ModelRole::Target, 0), (ModelRole::Draft, 0), (ModelRole::Target, 5)] {
            let choices = words(device(), CHOICES * MAX_ROWS, &[]);
            let draw = Some(Draw { sampling: &sampling, role, thresholds: None });
            let op = Argmax::new(device(), [&step, &batch], draw, first, &on_device, limit, vocabulary, &choices);
            let op = op.expect("shapes that fit");
            submit(device(), |pass| op.encode(pass, MAX_ROWS - first));
            let chosen: Vec<u32> = choices.read(device(), 0, CHOICES * MAX_ROWS).expect("reading back");
            for output in first..MAX_ROWS {
                let TurnSampling { seed, draft_seed, temperature, .. } = turns[turn_of(output)];
                let seed = if role == ModelRole::Draft { draft_seed } else { seed };
                let id = chosen[turn_of(output) * CHOICES + 1];
                let at = ids.iter().position(|&known| known == id).filter(|&at| at < limit);
                let at = at.unwrap_or_else(|| panic!("output {output}: {id} may not be chosen"));
                let position = positions[row_of(output)] + 1;
                let context = format!("{role:?}, output {output} from {first} on");
                is_drawn(&context, &logits[output * vocab..][..limit], &ids, (temperature, seed), position, at);
            }
        }
    }
}

/// Fails unless the token at `index` is the largest of `logit + temperature * noise`, as far as f32 can tell.
#[track_caller]
fn is_drawn(context: &str, logits: &[f32], ids: &[u32], (temperature, seed): (f32, u32), position: u32, index: usize) {
    let noised = |index: usize| {
        let (noise, bound) = gumbel(seed, position, ids[index]);
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
