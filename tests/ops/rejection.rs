//! `rejection` on the device.

use pard::low_level::ops::{PassRow, Rejection, RejectionTerms, Step, TurnSampling};

use super::{input, outputs, sampling, step, submit, words};
use crate::oracle::gumbel::{gumbel, uniform};
use crate::support::gpu::device;
use crate::support::random::Random;

/// Random chances with a few zeros among them.
fn chances(random: &mut Random, rows: usize, vocab: usize) -> Vec<f32> {
    let row = |random: &mut Random| {
        let weights = random.normals(vocab, 1.5).into_iter().map(|x| if x < -1.0 { 0.0 } else { x.exp() });
        let mut weights: Vec<f32> = weights.collect();
        weights[0] += 0.01;
        let sum: f32 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect::<Vec<f32>>()
    };
    (0..rows).flat_map(|_| row(random)).collect()
}

/// Each choice against the rule, given the device's own noise: accepted by min(1, p / q), else the largest of
/// log(p - q) + g. Where rounding decides, either is right.
#[test]
fn choices_follow_the_rule() {
    let (mut random, device) = (Random::new(73), device());
    let (draw_seed, accept_seed) = (17, 99);
    let (mut accepted, mut refused) = (0, 0);
    for (vocab, drafts) in [(2, 3), (63, 16), (300, 16), (1030, 5)] {
        let rows = drafts + 1;
        for round in 0..6 {
            let (p, mut q) = (chances(&mut random, rows, vocab), chances(&mut random, drafts, vocab));
            if round == 5 {
                q.copy_from_slice(&p[..drafts * vocab]);
            }
            // A proposal has a chance to be drawn.
            let draw = |row: usize, random: &mut Random| loop {
                let at = random.below(vocab);
                if q[row * vocab + at] > 0.0 {
                    break at as u32;
                }
            };
            let proposals: Vec<u32> = (0..drafts).map(|row| draw(row, &mut random)).collect();
            let step_values = Step { outputs: rows as u32, rows: 20, ..Step::default() };
            let batch = outputs(device, |row| PassRow {
                position: 40 + round + row as u32,
                output: (row as u32 + 2) % 32,
                choice: row as u32,
                ..PassRow::default()
            });
            // The draft's seed is for its own draws.
            let turn = TurnSampling { temperature: 1.0, seed: draw_seed, accept_seed, ..TurnSampling::default() };
            let sampling = sampling(device, &[TurnSampling { draft_seed: 5, ..turn }]);
            let (step, choices) = (step(device, step_values), words(device, 32, &[]));
            let (target, draft) = (input(device, vocab, &p), input(device, vocab, &q));
            let on_device = words(device, 32, &proposals);
            let terms = RejectionTerms { target: &target, draft: &draft, proposals: &on_device };
            let op = Rejection::new(device, [&step, &batch, &sampling], terms, &choices).expect("operands that fit");
            submit(device, |pass| op.encode(pass, rows));
            let got: Vec<u32> = choices.read(device, 0, rows).expect("reading back");
            for (row, &choice) in got.iter().enumerate() {
                let position = 40 + round + 2 + row as u32 + 1;
                let proposal = proposals.get(row).copied();
                let of = |chances: &[f32], id: usize| f64::from(chances[row * vocab + id]);
                let residual = |id: usize| of(&p, id) - proposal.map_or(0.0, |_| of(&q, id));
                let context =
                    format!("{vocab} tokens, row {row} of {rows}, round {round}: {choice}, proposed {proposal:?}");
                if let Some(proposal) = proposal {
                    let (wanted, at_hand) = (
                        uniform(accept_seed, position, proposal) * of(&q, proposal as usize),
                        of(&p, proposal as usize),
                    );
                    let off = 2f64.powi(-21) * (wanted + at_hand);
                    let is_accepted = choice == proposal;
                    assert!(is_accepted || wanted > at_hand - off, "{context}: it has to be accepted");
                    assert!(!is_accepted || wanted <= at_hand + off, "{context}: it has to be refused");
                    if is_accepted {
                        accepted += 1;
                        continue;
                    }
                    refused += 1;
                }
                assert!(residual(choice as usize) > 0.0, "{context}: nothing is left of it");
                let score = |id: usize| {
                    let (noise, bound) = gumbel(draw_seed, position, id as u32);
                    // The difference is exact or off by a unit of the larger.
                    let off = 2f64.powi(-22) * of(&p, id) / residual(id) + bound + 2f64.powi(-19);
                    (residual(id).ln() + noise, off)
                };
                let (value, off) = score(choice as usize);
                for id in (0..vocab).filter(|&id| residual(id) > 0.0) {
                    let (other, other_off) = score(id);
                    assert!(value + off >= other - other_off, "{context}: {value}, but {id} has {other}");
                }
            }
        }
    }
    assert!(accepted > 50 && refused > 50, "{accepted} accepted, {refused} refused");
}
