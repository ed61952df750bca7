//! `packed_attention` and its gradients on the device, and both oracles against finite differences.

use pard::low_level::gpu::{Buffer, CacheFormat, Device};
use pard::low_level::ops::gradients::{PackedAttention, PackedAttentionGradient};
use pard::low_level::ops::{AttentionShape, KvCache, Step, Tensor};

use super::training_rows::{Packed, layouts};
use crate::comparison::verdict;
use crate::ops::{compare, input, output, read, same_bits, step, submit};
use crate::oracle::gradients::packed_attention::{Given, packed_attention, packed_attention_gradient};
use crate::support::gpu::{device, plan, sweep};
use crate::support::kv_cache::Layout;
use crate::support::random::Random;

/// Heads of every width, and groups of 1 to 64.
const SHAPES: [AttentionShape; 8] = [
    AttentionShape { heads: 6, kv_heads: 2, head_dim: 64 },
    AttentionShape { heads: 2, kv_heads: 1, head_dim: 128 },
    AttentionShape { heads: 1, kv_heads: 1, head_dim: 16 },
    AttentionShape { heads: 7, kv_heads: 1, head_dim: 48 },
    AttentionShape { heads: 2, kv_heads: 2, head_dim: 80 },
    AttentionShape { heads: 2, kv_heads: 1, head_dim: 256 },
    AttentionShape { heads: 64, kv_heads: 1, head_dim: 32 },
    AttentionShape { heads: 1, kv_heads: 1, head_dim: 144 },
];

/// One layer's values.
struct Values {
    query: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    output_gradient: Vec<f32>,
}

impl Values {
    fn random(random: &mut Random, shape: AttentionShape, rows: usize, sharpness: f32) -> Values {
        let (width, kv_width) = (rows * shape.heads * shape.head_dim, rows * shape.kv_heads * shape.head_dim);
        Values {
            query: random.normals(width, sharpness),
            keys: random.normals(kv_width, 1.0),
            values: random.normals(kv_width, 1.0),
            output_gradient: random.normals(width, 1.0),
        }
    }

    fn given<'a>(&'a self, shape: AttentionShape, seen: &'a [Vec<usize>]) -> Given<'a, f32> {
        Given { shape, seen, query: &self.query, keys: &self.keys, values: &self.values }
    }
}

/// A layer on the device: NaN wherever no row may look.
struct Layer<'a> {
    device: &'a Device,
    shape: AttentionShape,
    rows: usize,
    step: Buffer,
    training_rows: Buffer,
    cache: KvCache,
    query: Tensor,
}

impl<'a> Layer<'a> {
    fn new(device: &'a Device, shape: AttentionShape, packed: &Packed, values: &Values) -> Layer<'a> {
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        let rows = packed.rows.len();
        let cache = KvCache::new(device, &plan(CacheFormat::F32), &shape, rows).expect("a small cache");
        let capacity = rows.next_multiple_of(64);
        // From `[rows, kv_heads, head_dim]`, with NaN in the room beyond.
        let by_head = |rows: &[f32]| {
            let mut all = vec![f32::NAN; kv_heads * capacity * head_dim];
            for (at, head) in rows.chunks(head_dim).enumerate() {
                let place = at % kv_heads * capacity + at / kv_heads;
                all[place * head_dim..][..head_dim].copy_from_slice(head);
            }
            all
        };
        let layout = |is_keys| Layout { format: CacheFormat::F32, is_keys, head_dim };
        cache.keys.write(device, 0, &layout(true).encoded(&by_head(&values.keys)));
        cache.values.write(device, 0, &layout(false).encoded(&by_head(&values.values)));
        Layer {
            device,
            shape,
            rows,
            step: step(device, Step { rows: rows as u32, ..Step::default() }),
            training_rows: Buffer::with_values(device, "rows", &packed.rows).expect("a small buffer"),
            cache,
            query: input(device, heads * head_dim, &values.query),
        }
    }

    /// The output and the log sums.
    fn forward(&self) -> [Vec<f32>; 2] {
        let Layer { device, shape, rows, .. } = *self;
        let out = output(device, rows, shape.heads * shape.head_dim);
        let log_sums = output(device, rows, shape.heads);
        let operands = [&self.query, &out];
        let op =
            PackedAttention::new(device, &self.step, &shape, &self.training_rows, &self.cache, operands, &log_sums);
        let op = op.expect("shapes that fit");
        submit(device, |pass| op.encode(pass, rows));
        [("out", &out), ("log_sums", &log_sums)].map(|(name, tensor)| read(device, name, tensor, rows))
    }

    /// The gradients by queries, keys and values.
    fn backward(&self, out: &[f32], log_sums: &[f32], output_gradient: &[f32]) -> [Vec<f32>; 3] {
        let Layer { device, shape: AttentionShape { heads, kv_heads, head_dim }, rows, .. } = *self;
        let (out, log_sums) = (input(device, heads * head_dim, out), input(device, heads, log_sums));
        let output_gradient = input(device, heads * head_dim, output_gradient);
        let results = [heads, kv_heads, kv_heads].map(|heads| output(device, rows, heads * head_dim));
        let op = PackedAttentionGradient::new(
            device,
            &self.step,
            &self.shape,
            &self.training_rows,
            &self.cache,
            [&self.query, &out],
            &log_sums,
            &output_gradient,
            results.each_ref(),
        );
        let op = op.expect("shapes that fit");
        submit(device, |pass| op.encode(pass, rows));
        results.map(|tensor| read(device, "packed_attention_gradient", &tensor, rows))
    }
}

fn narrowed(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

fn agrees(shape: AttentionShape, packed: &Packed, values: &Values, context: &str) {
    let seen = packed.seen();
    let given = values.given(shape, &seen);
    let layer = Layer::new(device(), shape, packed, values);
    let (out, log_sums) = packed_attention(given);
    let [got_out, got_log_sums] = layer.forward();
    compare(device(), "packed_attention", &format!("out, {context}"), &got_out, &out);
    compare(device(), "packed_attention", &format!("log_sums, {context}"), &got_log_sums, &log_sums);

    let (out, log_sums) = (narrowed(&out.values), narrowed(&log_sums.values));
    let expected = packed_attention_gradient(given, &out, &log_sums, &values.output_gradient);
    let got = layer.backward(&out, &log_sums, &values.output_gradient);
    for ((name, got), expected) in ["query", "key", "value"].into_iter().zip(&got).zip(&expected) {
        compare(device(), "packed_attention_gradient", &format!("{name}, {context}"), got, expected);
    }
}

#[test]
fn packed_attention_and_its_gradients_agree_with_f64() {
    for (index, shape) in SHAPES.into_iter().enumerate() {
        let mut random = Random::new(71 + index as u64);
        for (turn, (name, packed)) in layouts(&mut random).into_iter().enumerate() {
            // The largest layouts with the shapes of models; the others in turn.
            if !sweep() && index > 1 && (turn + index) % 3 != 0 {
                continue;
            }
            let values = Values::random(&mut random, shape, packed.rows.len(), 1.0);
            agrees(shape, &packed, &values, &format!("{name}, {shape:?}"));
        }
    }
}

#[test]
fn flat_and_sharp_scores_agree_with_f64() {
    let mut random = Random::new(81);
    for (name, packed) in layouts(&mut random).into_iter().skip(3) {
        for sharpness in [0.0, 30.0, 1e3] {
            let values = Values::random(&mut random, SHAPES[0], packed.rows.len(), sharpness);
            agrees(SHAPES[0], &packed, &values, &format!("{name}, sharpness {sharpness}"));
        }
    }
}

#[test]
fn results_are_the_same_whenever_they_are_computed() {
    let mut random = Random::new(82);
    let (_, packed) = layouts(&mut random).pop().expect("a layout");
    let values = Values::random(&mut random, SHAPES[0], packed.rows.len(), 1.0);
    let layer = Layer::new(device(), SHAPES[0], &packed, &values);
    let [out, log_sums] = layer.forward();
    let once = layer.backward(&out, &log_sums, &values.output_gradient);
    let again = layer.backward(&out, &log_sums, &values.output_gradient);
    same_bits("out", &layer.forward()[0], &out);
    once.iter().zip(&again).for_each(|(once, again)| same_bits("gradients", once, again));
}

/// No bound is so loose that a row too many, or one too few, goes unseen.
#[test]
fn another_mask_is_refused() {
    let mut random = Random::new(83);
    let (_, packed) = layouts(&mut random).swap_remove(5);
    let seen = packed.seen();
    let values = Values::random(&mut random, SHAPES[0], seen.len(), 1.0);
    let (out, log_sums) = packed_attention(values.given(SHAPES[0], &seen));
    let (given_out, given_log_sums) = (narrowed(&out.values), narrowed(&log_sums.values));
    let gradients = |seen: &[Vec<usize>]| {
        packed_attention_gradient(values.given(SHAPES[0], seen), &given_out, &given_log_sums, &values.output_gradient)
    };
    let expected = gradients(&seen);
    let row = seen.iter().position(|seen| seen.len() > 9).expect("a row that sees many");
    let without = seen[row][..seen[row].len() - 1].to_vec();
    let with = [&seen[row][..], &[seen.len() - 1]].concat();
    for other in [without, with] {
        let mut faulty = seen.clone();
        faulty[row] = other;
        let (faulty_out, faulty_log_sums) = packed_attention(values.given(SHAPES[0], &faulty));
        let results = [(faulty_out, &out), (faulty_log_sums, &log_sums)];
        let results = results.into_iter().chain(gradients(&faulty).into_iter().zip(&expected));
        for (faulty, expected) in results {
            let verdict = verdict("fault", "", &narrowed(&faulty.values), &expected.values, &expected.bound);
            assert!(verdict.is_err(), "another mask went unseen");
        }
    }
}
