//! `truncation` on the device.

use pard::low_level::ops::{CHOICES, MAX_ROWS, PassRow, Truncation, TurnSampling};

use super::{POISON, input, outputs, sampling, submit, words};
use crate::oracle::truncation::{Terms, truncation};
use crate::support::gpu::device;
use crate::support::random::Random;

/// Less than a workgroup, no multiple of one, and more than one.
const VOCABS: [usize; 8] = [1, 2, 63, 255, 257, 307, 2049, 10007];

const TERMS: [Terms; 10] = [
    Terms { top_k: 1, top_p: 1.0, min_p: 0.0, temperature: 1.0 },
    Terms { top_k: 40, top_p: 1.0, min_p: 0.0, temperature: 1.0 },
    Terms { top_k: 0, top_p: 0.9, min_p: 0.0, temperature: 1.0 },
    Terms { top_k: 0, top_p: 0.3, min_p: 0.0, temperature: 0.4 },
    Terms { top_k: 0, top_p: 0.999, min_p: 0.0, temperature: 3.0 },
    Terms { top_k: 0, top_p: 1e-6, min_p: 0.0, temperature: 1.0 },
    Terms { top_k: 0, top_p: 1.0, min_p: 0.05, temperature: 1.5 },
    Terms { top_k: 20, top_p: 0.8, min_p: 0.0, temperature: 1.0 },
    Terms { top_k: 300, top_p: 0.95, min_p: 0.1, temperature: 0.7 },
    Terms { top_k: 0, top_p: 0.5, min_p: 1.0, temperature: 1e-9 },
];

/// The thresholds of `rows` rows from `first_row` on.
fn run(logits: &[f32], vocab: usize, limit: usize, terms: Terms, first_row: usize, rows: usize) -> Vec<f32> {
    let device = device();
    let Terms { top_k, top_p, min_p, temperature } = terms;
    let temperature = TurnSampling::temperature(temperature);
    let min_p_gap = TurnSampling::min_p_gap(temperature, min_p);
    let turn = TurnSampling { top_k: top_k as u32, top_p, min_p_gap, temperature, ..TurnSampling::default() };
    // All rows are of the second turn.
    let other = TurnSampling { top_k: 1, temperature: 1.0, ..TurnSampling::default() };
    let sampling = sampling(device, &[other, turn]);
    let batch = outputs(device, |row| PassRow { choice: (CHOICES + row % 3) as u32, ..PassRow::default() });
    let (on_device, thresholds) = (input(device, vocab, logits), words(device, 64, &[]));
    let op = Truncation::new(device, [&batch, &sampling], first_row, &on_device, limit, &thresholds);
    let op = op.expect("shapes that fit");
    submit(device, |pass| op.encode(pass, rows));
    let all: Vec<u32> = thresholds.read(device, 0, 64).expect("reading back");
    let beyond = all[..first_row].iter().chain(&all[first_row + rows..]);
    assert!(beyond.copied().all(|bits| bits == POISON), "a threshold that nobody asked for");
    all[first_row..][..rows].iter().map(|&bits| f32::from_bits(bits)).collect()
}

fn agrees(context: &str, logits: &[f32], vocab: usize, limit: usize, terms: Terms) {
    let rows = logits.len() / vocab;
    let got = run(logits, vocab, limit, terms, 0, rows);
    for (row, (logits, threshold)) in logits.chunks(vocab).zip(got).enumerate() {
        let (least, most) = truncation(&logits[..limit], terms);
        let within = f64::from(threshold) >= least && f64::from(threshold) <= most;
        // If every token that is not banned is kept, the exact threshold does not matter.
        let smallest = logits[..limit].iter().copied().filter(|&logit| logit > f32::MIN).fold(f32::MAX, f32::min);
        let all = threshold <= smallest && least <= f64::from(f32::MIN);
        assert!(
            within || all,
            "{context}, row {row}, {limit} of {vocab}, {terms:?}: {threshold:e}, not {least:e} to {most:e}, {}",
            device().name()
        );
    }
}

#[test]
fn thresholds_are_those_of_a_sorted_row() {
    let mut random = Random::new(91);
    for vocab in VOCABS {
        for terms in TERMS {
            let logits = random.normals(3 * vocab, 3.0);
            agrees("random", &logits, vocab, vocab, terms);
            let few: Vec<f32> = (0..2 * vocab).map(|_| random.below(9) as f32 - 4.0).collect();
            agrees("few values", &few, vocab, vocab, terms);
            if vocab > 2 {
                let mut logits = random.normals(2 * vocab, 3.0);
                logits.chunks_mut(vocab).for_each(|row| row[vocab - 1] = 50.0);
                agrees("limited", &logits, vocab, vocab - 2, terms);
                // Most are banned.
                (0..2 * vocab).filter(|at| at % 5 > 0 && at % vocab > 0).for_each(|at| logits[at] = f32::MIN);
                agrees("banned", &logits, vocab, vocab, terms);
            }
        }
    }
}

/// Rows of several turns: each by its own parameters, and of those that ask for nothing everything is kept.
#[test]
fn rows_go_by_the_parameters_of_their_turns() {
    let (mut random, vocab, device) = (Random::new(93), 300, device());
    let temperature = |top_k, top_p| TurnSampling { temperature: 0.9, top_k, top_p, ..TurnSampling::default() };
    let turns = [temperature(5, 1.0), TurnSampling::default(), temperature(0, 0.7), temperature(0, 1.0)];
    let turn_of = |row: usize| row * 3 % turns.len();
    let batch = outputs(device, |row| PassRow { choice: (CHOICES * turn_of(row)) as u32, ..PassRow::default() });
    let (sampling, logits) = (sampling(device, &turns), random.normals(MAX_ROWS * vocab, 3.0));
    let (on_device, thresholds) = (input(device, vocab, &logits), words(device, MAX_ROWS, &[]));
    let op = Truncation::new(device, [&batch, &sampling], 0, &on_device, vocab, &thresholds).expect("shapes that fit");
    submit(device, |pass| op.encode(pass, MAX_ROWS));
    let got: Vec<f32> = thresholds.read(device, 0, MAX_ROWS).expect("reading back");
    for (row, (&threshold, logits)) in got.iter().zip(logits.chunks(vocab)).enumerate() {
        let TurnSampling { top_k, top_p, .. } = turns[turn_of(row)];
        let terms = Terms { top_k: top_k as usize, top_p, min_p: 0.0, temperature: 0.9 };
        let (least, most) = truncation(logits, terms);
        let smallest = logits.iter().copied().fold(f32::MAX, f32::min);
        let keeps_all = top_k == 0 && top_p == 1.0 && threshold <= smallest;
        let within = (least..=most).contains(&f64::from(threshold));
        assert!(keeps_all || within, "row {row}: {threshold}, not {least} to {most}");
    }
}

#[test]
fn far_apart_and_equal_logits_have_thresholds_too() {
    for terms in TERMS {
        agrees("one stands out", &[-900.0, 900.0, -900.0, 0.0], 4, 4, terms);
        agrees("equal", &[-2.5; 1000], 1000, 1000, terms);
        agrees("zeros of both signs", &[0.0, -0.0, -1.0, 0.0, -0.0], 5, 5, terms);
        agrees("tiny", &[1e-30, -1e-30, 1e-31, 0.0], 4, 4, terms);
    }
}

#[test]
fn a_rows_threshold_does_not_depend_on_the_rows_beside_it() {
    let (mut random, vocab) = (Random::new(92), 4099);
    let logits = random.normals(MAX_ROWS * vocab, 3.0);
    for terms in [TERMS[1], TERMS[4], TERMS[8]] {
        let together = run(&logits, vocab, vocab, terms, 0, MAX_ROWS);
        for row in [0, 1, 13, 31] {
            assert_eq!(run(&logits, vocab, vocab, terms, row, 1), together[row..=row], "row {row}, {terms:?}");
        }
        let alone = run(&logits[7 * vocab..8 * vocab], vocab, vocab, terms, 0, 1);
        assert_eq!(alone, together[7..8], "{terms:?}");
    }
}
