//! `expert_route`, `expert_groups`, `matmul_experts` and `expert_sum` on the device.

use std::ops::Range;

use pard::low_level::gpu::{Device, KernelPlan};
use pard::low_level::ops::{
    ExpertMatmul, ExpertMatrix, ExpertRoute, ExpertSizes, ExpertSum, MAX_ROWS, Mixture, Routing, Source, Step, Tensor,
    WeightFormat,
};

use super::matmul::{FORMATS, GPU_PLANS, swiglu_of, values_in};
use super::{compare, input, output, read, row_counts, same_bits, step, submit};
use crate::oracle::Expected;
use crate::oracle::blocks::widen;
use crate::oracle::experts::{expert_sum, route};
use crate::oracle::matmul::matmul;
use crate::support::gpu::{device, device_with_binding_limit, sweep};
use crate::support::random::Random;

/// Experts chosen for rows of scores, on the device.
struct Routed {
    routing: Routing,
    chosen: Vec<u32>,
    shares: Vec<f32>,
}

impl Routed {
    fn new(device: &Device, mixture: Mixture, scores: &[f32], normalised: bool) -> Routed {
        let rows = scores.len() / mixture.count;
        let step = step(device, Step { rows: rows as u32, ..Step::default() });
        let routing = Routing::new(device, mixture, rows.max(MAX_ROWS)).expect("a small mixture");
        let scores = input(device, mixture.count, scores);
        let op = ExpertRoute::new(device, &step, &scores, &routing, normalised).expect("shapes that fit");
        submit(device, |pass| op.encode(pass, rows).expect("a kernel that compiles"));
        let pairs = rows * mixture.used;
        let chosen = routing.chosen().read(device, 0, pairs).expect("reading back");
        let shares = routing.shares().read(device, 0, pairs).expect("reading back");
        Routed { routing, chosen, shares }
    }
}

/// Experts and those that a row takes: odd numbers, all of them, one alone, those of Qwen3-30B-A3B.
const MIXTURES: [Mixture; 5] = [
    Mixture { count: 8, used: 2 },
    Mixture { count: 1, used: 1 },
    Mixture { count: 5, used: 5 },
    Mixture { count: 128, used: 8 },
    Mixture { count: 201, used: 3 },
];

#[test]
fn the_highest_scores_are_chosen() {
    let mut random = Random::new(201);
    for mixture in MIXTURES {
        for normalised in [true, false] {
            let mut scores = random.normals(40 * mixture.count, 3.0);
            // Rows of equal scores, and of few values.
            scores[..mixture.count].fill(-1.5);
            scores[mixture.count..3 * mixture.count].iter_mut().for_each(|score| *score = score.signum());
            let routed = Routed::new(device(), mixture, &scores, normalised);
            let mut shares = Expected::default();
            for (row, scores) in scores.chunks(mixture.count).enumerate() {
                let (chosen, of_row) = route(scores, mixture.used, normalised);
                let found = routed.chosen[row * mixture.used..][..mixture.used].iter().map(|&expert| expert as usize);
                assert_eq!(found.collect::<Vec<_>>(), chosen, "{mixture:?}, row {row}");
                shares.values.extend(of_row.values);
                shares.bound.extend(of_row.bound);
            }
            compare(device(), "expert_route", &format!("{mixture:?}, {normalised}"), &routed.shares, &shares);
        }
    }
}

/// Whatever a damaged model scores, no kernel reads a weight that is not there.
#[test]
fn scores_that_are_no_numbers_choose_experts_that_exist() {
    let mixture = Mixture { count: 9, used: 4 };
    for score in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let routed = Routed::new(device(), mixture, &vec![score; 3 * mixture.count], true);
        assert!(routed.chosen.iter().all(|&expert| expert < 9), "{score}: {:?}", routed.chosen);
    }
}

/// Weights of experts.
struct Weights {
    sizes: ExpertSizes,
    format: WeightFormat,
    /// As stored.
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Weights {
    fn new(format: WeightFormat, sizes: ExpertSizes, random: &mut Random) -> Weights {
        let len = sizes.count * sizes.rows() * sizes.columns;
        let values = values_in(format, random, len, 0.3);
        let mut bytes = vec![0; format.stored_bytes(len)];
        format.store(&values, &mut bytes);
        let values = if format.is_quantised() { widen(format, &bytes) } else { values };
        Weights { sizes, format, bytes, values }
    }

    fn upload(&self, device: &Device, plan: &KernelPlan) -> ExpertMatrix {
        let width = self.format.stored_bytes(self.sizes.columns);
        let read = |rows: Range<usize>, out: &mut [u8]| {
            out.copy_from_slice(&self.bytes[rows.start * width..rows.end * width]);
            Ok(())
        };
        let source = Source::Stored(&read);
        ExpertMatrix::upload(device, plan, "weights", self.format, self.sizes, source).expect("small matrices")
    }

    fn of(&self, expert: u32) -> &[f32] {
        let len = self.sizes.rows() * self.sizes.columns;
        &self.values[expert as usize * len..][..len]
    }

    /// The result of the pairs of `x`'s rows and the experts chosen for them.
    fn expected(&self, chosen: &[u32], x: &[f32], readers: usize) -> Expected {
        let mut expected = Expected::default();
        for (pair, &expert) in chosen.iter().enumerate() {
            let x = &x[pair / readers * self.sizes.columns..][..self.sizes.columns];
            let products = matmul(x, self.of(expert), self.sizes.columns, None, None);
            let of_pair = if self.sizes.pair == 2 { swiglu_of(&products, self.sizes.outputs) } else { products };
            expected.values.extend(of_pair.values);
            expected.bound.extend(of_pair.bound);
        }
        expected
    }
}

/// The kernel's rows, `[rows · used, outputs]`.
fn product(
    device: &Device,
    plan: &KernelPlan,
    weights: &ExpertMatrix,
    routed: &Routed,
    used: usize,
    x: &[f32],
) -> Vec<f32> {
    let sizes = weights.sizes();
    let pairs = routed.chosen.len();
    let of_pairs = x.len() / sizes.columns == pairs && used > 1;
    let room = |rows: usize, width: usize| Tensor::new(device, "rows", rows.max(MAX_ROWS * used), width).expect("room");
    let (from, to) =
        (room(x.len() / sizes.columns, sizes.columns), output(device, pairs.max(MAX_ROWS * used), sizes.outputs));
    from.buffer.write(device, 0, x);
    let op =
        ExpertMatmul::new(device, plan, weights, &routed.routing, [&from, &to], of_pairs).expect("shapes that fit");
    submit(device, |pass| op.encode(pass, pairs / used).expect("a kernel that compiles"));
    read(device, "matmul_experts", &to, pairs)
}

/// Every format, gates with ups and downs, few rows and many, under this adapter's plan and those of GPUs.
#[test]
fn products_by_experts_agree_with_f64() {
    let mut random = Random::new(202);
    let formats = FORMATS.into_iter().chain(WeightFormat::quantised());
    for (index, format) in formats.enumerate() {
        let columns = if format.is_quantised() { format.block_len().max(96) } else { 72 };
        let plans = [device().default_plan(), GPU_PLANS[index % 3]];
        for (at, plan) in plans.into_iter().enumerate() {
            let mixture = MIXTURES[[0, 2, 3][(index + at) % 3]];
            let pair = 1 + (index + at) % 2;
            let sizes = ExpertSizes { count: mixture.count, outputs: [1, 33, 65][index % 3], columns, pair };
            let weights = Weights::new(format, sizes, &mut random);
            let matrix = weights.upload(device(), &plan);
            let counts = if sweep() { vec![1, 2, 5, 13, 32, 70] } else { vec![1, [5, 13, 32, 70][index % 4]] };
            for rows in counts {
                let routed = Routed::new(device(), mixture, &random.normals(rows * mixture.count, 1.0), true);
                let readers = if pair == 2 { mixture.used } else { 1 };
                let x = random.normals(rows * mixture.used / readers * columns, 1.0);
                let actual = product(device(), &plan, &matrix, &routed, mixture.used, &x);
                let context = format!("{rows} rows, {sizes:?}, {format:?}, {plan}");
                compare(device(), "matmul_experts", &context, &actual, &weights.expected(&routed.chosen, &x, readers));
            }
        }
    }
}

/// Each row alone and among others, whatever experts those take: few experts make large groups.
#[test]
fn a_row_of_experts_does_not_depend_on_the_others() {
    let mut random = Random::new(203);
    let mixture = Mixture { count: 5, used: 2 };
    for (plan, format) in [
        (device().default_plan(), WeightFormat::Q8_0),
        (GPU_PLANS[0], WeightFormat::Bf16),
        (GPU_PLANS[2], WeightFormat::Q4_0),
    ] {
        let sizes = ExpertSizes { count: 5, outputs: 40, columns: 96, pair: 2 };
        let matrix = Weights::new(format, sizes, &mut random).upload(device(), &plan);
        let (scores, x) = (random.normals(100 * 5, 1.0), random.normals(100 * 96, 1.0));
        let run = |rows: Range<usize>| {
            let scores = &scores[rows.start * 5..rows.end * 5];
            let routed = Routed::new(device(), mixture, scores, true);
            product(device(), &plan, &matrix, &routed, 2, &x[rows.start * 96..rows.end * 96])
        };
        let alone: Vec<f32> = (0..MAX_ROWS).flat_map(|row| run(row..row + 1)).collect();
        for rows in row_counts() {
            same_bits(&format!("{rows} rows, {plan}"), &run(0..rows), &alone[..rows * 2 * 40]);
        }
        same_bits(&format!("a prompt, {plan}"), &run(0..100)[..MAX_ROWS * 2 * 40], &alone);
    }
}

#[test]
fn experts_in_several_parts_give_the_same_bits() {
    let mut random = Random::new(204);
    let (mixture, plan) = (Mixture { count: 8, used: 2 }, device().default_plan());
    let sizes = ExpertSizes { count: 8, outputs: 64, columns: 1024, pair: 1 };
    let weights = Weights::new(WeightFormat::F32, sizes, &mut random);
    let scores = random.normals(13 * 8, 1.0);
    let x = random.normals(13 * 2 * 1024, 1.0);
    let run = |device: &Device| {
        let matrix = weights.upload(device, &plan);
        product(device, &plan, &matrix, &Routed::new(device, mixture, &scores, true), 2, &x)
    };
    // Room for three experts of 256 KiB.
    same_bits("parts", &run(&device_with_binding_limit(900 << 10)), &run(device()));
    let small = device_with_binding_limit(200 << 10);
    let read = |_: Range<usize>, _: &mut [f32]| Ok(());
    let refused = ExpertMatrix::upload(&small, &plan, "weights", WeightFormat::F32, sizes, Source::Values(&read));
    let message = refused.err().expect("no expert fits").to_string();
    assert!(message.contains("one expert of weights"), "{message}");
}

#[test]
fn the_experts_of_a_row_are_added_up() {
    let mut random = Random::new(205);
    for (mixture, width) in MIXTURES.into_iter().zip([4, 72, 260, 2048, 1000]) {
        let rows = 17;
        let routed = Routed::new(device(), mixture, &random.normals(rows * mixture.count, 2.0), true);
        let values = random.normals(rows * mixture.used * width, 1.0);
        let before = random.normals(rows * width, 1.0);
        let y = Tensor::new(device(), "y", MAX_ROWS * mixture.used, width).expect("room");
        y.buffer.write(device(), 0, &values);
        let hidden = output(device(), MAX_ROWS, width);
        hidden.buffer.write(device(), 0, &before);
        let op = ExpertSum::new(device(), &routed.routing, [&y, &hidden]).expect("shapes that fit");
        submit(device(), |pass| op.encode(pass, rows));
        let mut expected = Expected::default();
        for row in 0..rows {
            let of_row = row * mixture.used..(row + 1) * mixture.used;
            let outputs: Vec<&[f32]> = of_row.clone().map(|pair| &values[pair * width..][..width]).collect();
            let sum = expert_sum(&routed.shares[of_row], &outputs, &before[row * width..][..width]);
            expected.values.extend(sum.values);
            expected.bound.extend(sum.bound);
        }
        compare(
            device(),
            "expert_sum",
            &format!("{mixture:?}"),
            &read(device(), "expert_sum", &hidden, rows),
            &expected,
        );
    }
}

/// The formula against counting: rows that take experts at random.
#[test]
fn the_number_of_distinct_experts_is_foretold() {
    let (mixture, mut random) = (Mixture { count: 128, used: 8 }, Random::new(206));
    for rows in [1, 2, 5, 17] {
        let trials = 400;
        let distinct: usize = (0..trials)
            .map(|_| {
                let scores = random.normals(rows * mixture.count, 1.0);
                let chosen = scores.chunks(mixture.count).flat_map(|scores| route(scores, mixture.used, true).0);
                chosen.collect::<std::collections::BTreeSet<_>>().len()
            })
            .sum();
        let (seen, foretold) = (distinct as f64 / trials as f64, mixture.distinct(rows));
        assert!((seen - foretold).abs() < 0.02 * foretold, "{rows} rows: {seen} seen, {foretold} foretold");
    }
}
