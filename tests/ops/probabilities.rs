//! `probabilities` on the device.

use pard::low_level::gpu::Buffer;
use pard::low_level::ops::{PassRow, Probabilities, TurnSampling};

use super::{compare, input, output, outputs, sampling, submit, words};
use crate::oracle::probabilities::probabilities;
use crate::support::gpu::device;
use crate::support::random::Random;

#[test]
fn chances_are_those_of_softmax_over_what_is_kept() {
    let (mut random, device) = (Random::new(72), device());
    for (index, vocab) in [1, 2, 63, 257, 307, 4099].into_iter().enumerate() {
        for (temperature, threshold, rows, first_row, first_choice) in
            [(1.0, None, 17, 0, 0), (0.3, Some(0.5), 3, 0, 0), (2.5, Some(-1.0), 1, 2, 0), (1.0, Some(1.0), 1, 0, 5)]
        {
            let logits = random.normals(17 * vocab, 2.0);
            let ids: Vec<u32> = (0..vocab as u32).map(|id| if index % 2 == 1 { 2 * id + 1 } else { id }).collect();
            let width = 2 * vocab + 1;
            let largest = |row: usize| logits[row * vocab..][..vocab].iter().copied().fold(f32::MIN, f32::max);
            // Something is kept of every row.
            let thresholds: Vec<f32> = (0..17).map(|row| largest(row).min(threshold.unwrap_or(f32::MIN))).collect();
            let on_device = Buffer::with_values(device, "thresholds", &thresholds).expect("a small buffer");
            let listed = words(device, vocab, &ids);
            let batch = outputs(device, |row| PassRow { choice: (first_choice + row) as u32, ..PassRow::default() });
            let sampling = sampling(device, &[TurnSampling { temperature, ..TurnSampling::default() }]);
            let chances = output(device, 17, width);
            let op = Probabilities::new(
                device,
                [&batch, &sampling],
                first_row,
                &input(device, vocab, &logits),
                vocab,
                Some(&listed).filter(|_| index % 2 == 1),
                threshold.map(|_| &on_device),
                &chances,
            );
            let op = op.expect("operands that fit");
            submit(device, |pass| op.encode(pass, rows));
            let all: Vec<f32> = chances.buffer.read(device, 0, 17 * width).expect("reading back");
            for row in 0..17 {
                let got = &all[row * width..][..width];
                let of = row.wrapping_sub(first_choice);
                if !(first_row..first_row + rows).contains(&of) {
                    assert!(got.iter().all(|chance| chance.is_nan()), "row {row} is nobody's");
                    continue;
                }
                let expected = probabilities(&logits[of * vocab..][..vocab], temperature, thresholds[of]);
                let named: Vec<f32> = ids.iter().map(|&id| got[id as usize]).collect();
                let context = format!("row {row}, {vocab} tokens, T = {temperature}, {threshold:?}");
                compare(device, "probabilities", &context, &named, &expected);
                let written = got.iter().filter(|chance| !chance.is_nan()).count();
                assert_eq!(written, vocab, "{context}: ids that no logit is of");
            }
        }
    }
}
