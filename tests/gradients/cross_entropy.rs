//! `cross_entropy` on the device.

use pard::low_level::gpu::Buffer;
use pard::low_level::ops::Step;
use pard::low_level::ops::gradients::{CrossEntropy, Label, RowLoss};

use super::finite_differences;
use crate::comparison::check;
use crate::ops::{POISON, compare, input, poison, read, step, submit};
use crate::oracle::argmax::argmax;
use crate::oracle::gradients::cross_entropy::cross_entropy;
use crate::support::gpu::device;
use crate::support::random::Random;

/// Around a workgroup of a GPU or a CPU, and odd.
const VOCABS: [usize; 9] = [1, 2, 7, 9, 255, 256, 257, 1003, 10007];

/// Every kind of row: with and without a token, with either weight or none.
fn labels(random: &mut Random, rows: usize, vocab: usize) -> Vec<Label> {
    (0..rows)
        .map(|row| {
            let id = if row % 4 == 2 { Label::NONE } else { random.below(vocab) as u32 };
            let weight = if row % 8 == 6 { 0.0 } else { random.normal().abs() };
            Label {
                id,
                weight,
                divergence_weight: if row % 4 == 2 && row % 8 > 4 { 0.0 } else { random.normal().abs() },
            }
        })
        .collect()
}

/// Runs the kernel on rows `first_output ..` and checks gradient, losses and choices.
fn agrees(context: &str, logits: &[f32], teacher: Option<&[f32]>, labels: &[Label], first_output: usize) {
    let rows = labels.len();
    let vocab = logits.len() / rows;
    let device = device();
    let context = format!("{context}, [{rows}, {vocab}] from {first_output}, teacher {}", teacher.is_some());
    let values = Step { outputs: rows as u32, first_output: first_output as u32, rows: 1, ..Step::default() };
    let (step, tensor) = (step(device, values), crate::ops::output(device, rows, vocab));
    tensor.buffer.write(device, 0, logits);
    let teacher_rows = teacher.map(|teacher| input(device, vocab, teacher));
    let room = first_output + rows + 2;
    let label_buffer = Buffer::storage(device, "labels", (room * size_of::<Label>()) as u64).expect("a small buffer");
    poison(device, &label_buffer);
    label_buffer.write(device, (first_output * size_of::<Label>()) as u64, labels);
    let losses = Buffer::storage(device, "losses", (room * size_of::<RowLoss>()) as u64).expect("a small buffer");
    poison(device, &losses);
    let op = CrossEntropy::new(device, &step, &tensor, teacher_rows.as_ref(), &label_buffer, &losses);
    let op = op.expect("shapes that fit");
    // A row more than there is.
    submit(device, |pass| op.encode(pass, rows + 1));

    let gradient = read(device, "cross_entropy", &tensor, rows);
    let words: Vec<u32> = losses.read(device, 0, 4 * room).expect("reading back");
    let (before, after) = (&words[..4 * first_output], &words[4 * (first_output + rows)..]);
    assert!(before.iter().chain(after).all(|&word| word == POISON), "losses nobody asked for, {context}");
    let losses: Vec<RowLoss> = losses.read(device, 0, first_output + rows).expect("reading back");
    let losses = &losses[first_output..];
    let choices = argmax(logits, vocab);
    let teacher_choices = teacher.map(|teacher| argmax(teacher, vocab));
    for (row, (&label, loss)) in labels.iter().zip(losses).enumerate() {
        let range = row * vocab..(row + 1) * vocab;
        let expected = cross_entropy(&logits[range.clone()], teacher.map(|teacher| &teacher[range.clone()]), label);
        let context = format!("row {row}, {label:?}, {context}");
        compare(device, "cross_entropy", &context, &gradient[range.clone()], &expected.gradient);
        if (label.id == Label::NONE || label.weight == 0.0) && (teacher.is_none() || label.divergence_weight == 0.0) {
            assert!(gradient[range].iter().all(|&g| g == 0.0), "{context}");
        }
        for (what, actual, (value, bound)) in [
            ("cross-entropy", loss.cross_entropy, expected.cross_entropy),
            ("divergence", loss.divergence, expected.divergence),
        ] {
            check(what, &context, &[actual], &[value], &[bound]);
        }
        assert_eq!(loss.choice, choices[row], "{context}");
        assert_eq!(loss.teacher_choice, teacher_choices.as_ref().map_or(label.id, |all| all[row]), "{context}");
    }
}

#[test]
fn cross_entropy_agrees_with_f64() {
    let mut random = Random::new(81);
    for vocab in VOCABS {
        for (rows, magnitude) in [(1, 3.0), (9, 3.0), (16, 30.0)] {
            let logits = random.normals(rows * vocab, magnitude);
            let teacher = random.normals(rows * vocab, magnitude);
            let labels = labels(&mut random, rows, vocab);
            agrees("random", &logits, None, &labels, rows % 5);
            agrees("random", &logits, Some(&teacher), &labels, rows % 3);
            agrees("the teacher itself", &logits, Some(&logits), &labels, 0);
        }
    }
}

#[test]
fn cross_entropy_of_extreme_logits() {
    let mut random = Random::new(82);
    let (rows, vocab) = (8, 307);
    let labels = labels(&mut random, rows, vocab);
    let zeros = vec![0.0; rows * vocab];
    agrees("zeros", &zeros, Some(&zeros), &labels, 1);
    for value in [1e4, -1e4] {
        // One logit outweighs all others, now the label's, now another.
        let mut logits = random.normals(rows * vocab, 1.0);
        for (row, label) in labels.iter().enumerate() {
            let at = if row % 2 == 0 { label.id.min(306) as usize } else { row };
            logits[row * vocab + at] = value;
        }
        agrees("a spike", &logits, None, &labels, 0);
        agrees("a spike", &logits, Some(&zeros), &labels, 0);
        agrees("the teacher's spike", &zeros, Some(&logits), &labels, 0);
    }
}

#[test]
fn cross_entropy_gradient_is_that_of_finite_differences() {
    let mut random = Random::new(83);
    let vocab = 11;
    let point: Vec<f64> = random.normals(vocab, 2.0).into_iter().map(f64::from).collect();
    let teacher: Vec<f64> = random.normals(vocab, 2.0).into_iter().map(f64::from).collect();
    for (id, weight, divergence_weight) in [(4, 0.75, 0.0), (4, 0.0, 0.5), (10, 0.25, 1.5), (Label::NONE, 1.0, 2.0)] {
        let label = Label { id, weight, divergence_weight };
        // Straight from the definitions.
        let loss = |logits: &[f64]| {
            let log_sum = |row: &[f64]| row.iter().map(|x| x.exp()).sum::<f64>().ln();
            let [draft, wanted] = [log_sum(logits), log_sum(&teacher)];
            let own = if id == Label::NONE { 0.0 } else { draft - logits[id as usize] };
            let divergence: f64 =
                (0..vocab).map(|i| (teacher[i] - wanted).exp() * ((teacher[i] - wanted) - (logits[i] - draft))).sum();
            (f64::from(weight) * own + f64::from(divergence_weight) * divergence, own, divergence)
        };
        let expected = cross_entropy(&point, Some(&teacher), label);
        let (_, own, divergence) = loss(&point);
        assert!((own - expected.cross_entropy.0).abs() < 1e-12, "{label:?}");
        assert!((divergence - expected.divergence.0).abs() < 1e-12, "{label:?}");
        finite_differences("logits", &point, &expected.gradient.values, 1e-5, |moved| loss(moved).0);
    }
}
