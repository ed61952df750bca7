//! `log_probabilities` on the device.

use pard::low_level::ops::{CHOICES, LogProbabilities, MAX_ROWS, PassRow, TurnSampling};

use super::{POISON, compare, input, outputs, sampling, submit, words};
use crate::oracle::Expected;
use crate::oracle::log_probabilities::{likeliest, log_probabilities};
use crate::support::gpu::device;
use crate::support::random::Random;

/// Less than a workgroup, no multiple of one, and more than one.
const VOCABS: [usize; 6] = [1, 2, 63, 257, 307, 10007];

/// Offset of the log-probabilities, and the most likeliest tokens that there is room for.
const FIRST_WORD: usize = 18;
const ROOM: usize = 20;

fn agrees(context: &str, logits: &[f32], vocab: usize, limit: usize, top: usize, ids: Option<&[u32]>) {
    let (device, rows) = (device(), (logits.len() / vocab).min(17));
    let id_of = |index: usize| ids.map_or(index as u32, |ids| ids[index]);
    let mut random = Random::new(vocab as u64);
    let chosen: Vec<usize> = (0..rows).map(|_| random.below(limit)).collect();
    let tokens: Vec<u32> = chosen.iter().map(|&index| id_of(index)).collect();
    // Every third row is of a turn that wants none.
    let wants = |row: usize| rows < 3 || row % 3 != 2;
    let turn = |logprobs| TurnSampling { logprobs, ..TurnSampling::default() };
    let sampling = sampling(device, &[turn(0), turn(1 + top as u32)]);
    let choice = |row: usize| CHOICES * usize::from(wants(row)) + row;
    let batch = outputs(device, |row| PassRow { choice: choice(row) as u32, ..PassRow::default() });
    let choices = words(device, 2 * CHOICES, &[]);
    tokens.iter().enumerate().for_each(|(row, &token)| choices.write(device, 4 * choice(row) as u64, &[token]));
    let (stride, used) = (LogProbabilities::words(ROOM), LogProbabilities::words(top));
    let record = words(device, FIRST_WORD + 17 * stride + 8, &[]);
    let listed = ids.map(|ids| words(device, ids.len(), ids));
    let on_device = input(device, vocab, logits);
    let inputs = [&batch, &sampling];
    let place = [FIRST_WORD, ROOM];
    let op = LogProbabilities::new(device, inputs, &on_device, limit, listed.as_ref(), &choices, &record, place);
    let op = op.expect("operands that fit");
    submit(device, |pass| op.encode(pass, rows));
    let all: Vec<u32> = record.read(device, 0, FIRST_WORD + 17 * stride + 8).expect("reading back");
    assert!(all[..FIRST_WORD].iter().all(|&word| word == POISON), "{context}: before the first word");
    let beyond = &all[FIRST_WORD + rows * stride..];
    assert!(beyond.iter().all(|&word| word == POISON), "{context}: beyond {rows} rows");
    for row in 0..rows {
        let logits = &logits[row * vocab..][..limit];
        let (expected, best) = (log_probabilities(logits), likeliest(logits, top));
        let (words, rest) = all[FIRST_WORD + row * stride..][..stride].split_at(if wants(row) { used } else { 0 });
        assert!(rest.iter().all(|&word| word == POISON), "{context}, row {row}: more than is wanted");
        if !wants(row) {
            continue;
        }
        let ids: Vec<u32> = words[1..].iter().step_by(2).copied().collect();
        assert_eq!(
            ids,
            best.iter().map(|&index| id_of(index)).collect::<Vec<_>>(),
            "{context}, row {row}: the likeliest"
        );
        // The words of values: the chosen token's, then each second one of those of the likeliest.
        let values = words[..1].iter().chain(words[1..].iter().skip(1).step_by(2));
        let got: Vec<f32> = values.map(|&bits| f32::from_bits(bits)).collect();
        let mut wanted = Expected::default();
        for &index in [chosen[row]].iter().chain(&best) {
            wanted.push(expected.values[index], expected.bound[index]);
        }
        compare(
            device,
            "log_probabilities",
            &format!("{context}, row {row}, {limit} of {vocab}, top {top}"),
            &got,
            &wanted,
        );
    }
}

#[test]
fn log_probabilities_are_those_of_softmax() {
    let mut random = Random::new(71);
    for (index, vocab) in VOCABS.into_iter().enumerate() {
        let rows = if index % 2 == 0 { 1 } else { MAX_ROWS };
        let logits = random.normals(rows * vocab, 4.0);
        for (limit, top) in
            [(vocab, 0), (vocab, 1), (vocab.div_ceil(2), 5.min(vocab.div_ceil(2))), (vocab, 20.min(vocab))]
        {
            agrees("random", &logits, vocab, limit, top, None);
        }
        let ids: Vec<u32> = (0..vocab as u32).map(|index| 3 * index + 2).collect();
        agrees("listed", &logits, vocab, vocab, 3.min(vocab), Some(&ids));
    }
}

#[test]
fn equals_and_extremes_have_log_probabilities_too() {
    agrees("equal", &[0.25; 600], 300, 300, 20, None);
    agrees("far apart", &[-30000.0, 0.0, 30000.0, 29999.0], 4, 4, 4, None);
    agrees("in pairs", &(0..600).map(|index| (index % 7 / 2) as f32).collect::<Vec<_>>(), 600, 600, 20, None);
    agrees("as low as can be", &[f32::MIN, f32::MIN, -1.0, f32::MIN], 4, 4, 1, None);
}
