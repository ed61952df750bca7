//! `adamw` on the device.

use pard::low_level::gpu::Buffer;
use pard::low_level::ops::gradients::{AdamW, AdamWStep, MomentFormat};

use crate::ops::{POISON, compare, submit};
use crate::oracle::gradients::adamw::AdamW as Oracle;
use crate::support::gpu::device;
use crate::support::random::Random;

/// Step `number` of 1, 2, ..
fn numbers(number: u32, clip: f32) -> AdamWStep {
    let (beta1, beta2) = (0.9f32, 0.999f32);
    let correction = |beta: f32| (1.0 - f64::from(beta).powi(number as i32)) as f32;
    AdamWStep {
        learning_rate: 3e-3,
        beta1,
        beta2,
        epsilon: 1e-8,
        weight_decay: 0.1,
        correction1: correction(beta1),
        correction2: correction(beta2),
        clip,
        number,
    }
}

/// A parameter with its buffers; beyond its values lies poison.
struct Trained {
    step: Buffer,
    norm: Buffer,
    parameter: Buffer,
    gradient: Buffer,
    op: AdamW,
    values: usize,
}

impl Trained {
    fn new(parameter: &[f32], format: MomentFormat) -> Trained {
        let values = parameter.len();
        let buffer = |label| {
            let buffer = Buffer::storage(device(), label, 4 * values as u64 + 64).expect("a small buffer");
            buffer.write(device(), 0, &vec![POISON; values + 16]);
            buffer
        };
        let step = Buffer::uniform(device(), "step", &numbers(1, 1.0)).expect("a small buffer");
        let norm = Buffer::storage(device(), "norm", 4).expect("a small buffer");
        let buffers = [buffer("parameter"), buffer("gradient")];
        buffers[0].write(device(), 0, parameter);
        let op = AdamW::new(device(), &step, &norm, buffers.each_ref(), values, format).expect("shapes that fit");
        let [parameter, gradient] = buffers;
        Trained { step, norm, parameter, gradient, op, values }
    }

    fn step(&self, numbers: AdamWStep, gradient: &[f32], norm: f32) {
        self.step.write(device(), 0, &[numbers]);
        self.norm.write(device(), 0, &[norm]);
        self.gradient.write(device(), 0, gradient);
        submit(device(), |pass| self.op.encode(pass));
        let left: Vec<f32> = self.gradient.read(device(), 0, self.values).expect("reading back");
        assert!(left.iter().all(|&g| g.to_bits() == 0), "the gradient is zeroed");
        for buffer in [&self.parameter, &self.gradient] {
            let beyond: Vec<u32> = buffer.read(device(), 4 * self.values as u64, 16).expect("reading back");
            assert!(beyond.iter().all(|&word| word == POISON), "written beyond {} values", self.values);
        }
    }

    fn parameter(&self) -> Vec<f32> {
        self.parameter.read(device(), 0, self.values).expect("reading back")
    }
}

#[test]
fn adamw_agrees_with_f64_over_five_steps() {
    let mut random = Random::new(91);
    for values in [4, 8, 252, 256, 260, 5000] {
        let parameter = random.normals(values, 1.0);
        let trained = Trained::new(&parameter, MomentFormat::F32);
        let mut oracle = Oracle::new(&parameter);
        for number in 1..=5 {
            // Clipped in the second and the fourth step, and at the edge in the third.
            let norm = [0.5, 4.0, 1.0, 1e3, 1e-3][number as usize - 1];
            let mut gradient = random.normals(values, if number == 4 { 100.0 } else { 0.1 });
            gradient[0] = 0.0;
            let numbers = numbers(number, 1.0);
            trained.step(numbers, &gradient, norm);
            oracle.step(&numbers, &gradient, (f64::from(norm), 0.0));
            let context = format!("{values} values, step {number}");
            let [first, second] = trained.op.moments(device()).expect("reading back");
            compare(device(), "adamw", &format!("first moment, {context}"), &first, &oracle.first);
            compare(device(), "adamw", &format!("second moment, {context}"), &second, &oracle.second);
            compare(device(), "adamw", &context, &trained.parameter(), &oracle.parameter);
        }
    }
}

#[test]
fn the_oracle_is_the_published_algorithm() {
    // By hand: the first step's bias-corrected moments are g and g², so the parameter moves by the learning rate.
    let numbers = numbers(1, 10.0);
    let mut oracle = Oracle::new(&[2.0, -1.0]);
    oracle.step(&numbers, &[0.5, -0.25], (1.0, 0.0));
    let rate = f64::from(numbers.learning_rate);
    for (value, expected) in oracle.parameter.values.iter().zip([2.0 - rate * 1.2, -1.0 + rate * 1.1]) {
        assert!((value - expected).abs() < 1e-6 * rate + 1e-8, "{value}, not {expected}");
    }
    // Clipping by a factor is the same as a gradient that much shorter.
    let mut long = Oracle::new(&[2.0, -1.0]);
    long.step(&numbers, &[2.0, -1.0], (40.0, 0.0));
    assert_eq!(long.parameter.values, oracle.parameter.values);
}

#[test]
fn moments_come_back_as_they_were_set() {
    let mut random = Random::new(92);
    for format in [MomentFormat::F32, MomentFormat::Bf16] {
        let values = 260;
        let (parameter, gradient) = (random.normals(values, 1.0), random.normals(values, 0.1));
        let [one, other] = [(); 2].map(|()| Trained::new(&parameter, format));
        one.step(numbers(1, 1.0), &gradient, 0.1);
        let [first, second] = one.op.moments(device()).expect("reading back");
        other.op.set_moments(device(), [&first, &second]).expect("as many");
        assert!(other.op.set_moments(device(), [&first, &second[1..]]).is_err());
        other.parameter.write(device(), 0, &one.parameter());
        // From the same state the same step leads to the same bits.
        for trained in [&one, &other] {
            trained.step(numbers(2, 1.0), &gradient, 0.1);
        }
        assert_eq!(one.parameter(), other.parameter(), "{format:?}");
        assert_eq!(one.op.moments(device()).expect("reading"), other.op.moments(device()).expect("reading"));
    }
}

/// A gradient that stays the same brings the second moment to its square, though each step then changes it by less than a
/// BF16 can tell; rounded to nearest it would stall far below.
#[test]
fn bf16_moments_do_not_stall() {
    let values = 4096;
    let trained = Trained::new(&vec![1.0; values], MomentFormat::Bf16);
    // Rather than from zero, which takes long, from 0.97 of it: a step adds 3e-5 of 1, and a BF16 there has steps of 4e-3.
    let g = 1.0f32;
    trained.op.set_moments(device(), [&vec![g; values], &vec![0.97 * g * g; values]]).expect("as many");
    let start = f64::from(half::bf16::from_f32(0.97).to_f32());
    let steps = 200;
    for number in 1..=steps {
        trained.step(numbers(number, 1e9), &vec![g; values], 1.0);
    }
    let [first, second] = trained.op.moments(device()).expect("reading back");
    let mean = |moment: &[f32]| moment.iter().copied().map(f64::from).sum::<f64>() / values as f64;
    let expected = 1.0 - (1.0 - start) * 0.999f64.powi(steps as i32);
    // The mean of 4096 roundings in each of 200 steps: one rounding has a deviation below 2^-9.
    let deviation = 2f64.powi(-9) * (f64::from(steps) / values as f64).sqrt();
    assert!((mean(&second) - expected).abs() < 5.0 * deviation, "{} not {expected}", mean(&second));
    assert!((mean(&first) - 1.0).abs() < 5.0 * deviation, "{}", mean(&first));
    assert!(second.iter().any(|&v| v != second[0]), "values round by themselves");
}

#[test]
fn bf16_moments_are_neighbours_of_the_exact_ones() {
    let mut random = Random::new(93);
    let (parameter, gradient) = (random.normals(1000, 1.0), random.normals(1000, 0.1));
    let trained = Trained::new(&parameter, MomentFormat::Bf16);
    trained.step(numbers(1, 1.0), &gradient, 0.1);
    let mut oracle = Oracle::new(&parameter);
    oracle.step(&numbers(1, 1.0), &gradient, (0.1, 0.0));
    for expected in [&mut oracle.first, &mut oracle.second] {
        for (bound, value) in expected.bound.iter_mut().zip(&expected.values) {
            *bound += 2f64.powi(-7) * value.abs();
        }
    }
    let [first, second] = trained.op.moments(device()).expect("reading back");
    compare(device(), "adamw", "first moment in bf16", &first, &oracle.first);
    compare(device(), "adamw", "second moment in bf16", &second, &oracle.second);
    // The step itself is taken by the moments as they were before the rounding.
    compare(device(), "adamw", "bf16 moments", &trained.parameter(), &oracle.parameter);
}
