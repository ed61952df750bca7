//! A row's result is the same, bit for bit, however many rows run with it, and a prompt's however it is cut: what makes
//! AR, VSD and PARD write the same text. First every kernel, then whole models, under the plan of this adapter and under
//! those of the GPU classes.

use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{Buffer, CacheFormat, KernelPlan, MatmulPath};
use pard::low_level::ops::{
    AttentionShape, Epilogue, MAX_ROWS, Matmul, Matrix, Phase, RopeGains, RowRange, Source, Step, Variant, WeightFormat,
};

use crate::ops::attention::{Layer, gpu_plan};
use crate::ops::integer::INTEGER_PLANS;
use crate::ops::matmul::{ENDINGS, Ending, FORMATS, GPU_PLANS, GateUp, Product};
use crate::ops::quantised::{Blocks, product};
use crate::ops::{
    embedding, input, matmul, output, poison, read, rms_norm, rope, row_counts, same_bits, submit, swiglu, vector,
};
use crate::support::gpu::{cooperative_plan, device, plan, sweep, upload};
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

/// This adapter's plan with either float cache, and the others, one of which has an 8-bit cache.
fn plans() -> Vec<KernelPlan> {
    [plan(CacheFormat::F16), plan(CacheFormat::F32)].into_iter().chain(GPU_PLANS).collect()
}

/// Each of `MAX_ROWS` rows alone, against the first rows of every count together. `rows(first, count)` runs some.
fn rows_alone_and_together(context: &str, width: usize, rows: impl Fn(usize, usize) -> Vec<f32>) {
    let alone: Vec<f32> = (0..MAX_ROWS).flat_map(|row| rows(row, 1)).collect();
    for count in row_counts() {
        same_bits(&format!("{context}, {count} rows"), &rows(0, count), &alone[..count * width]);
        // Others beside it, and another place among them.
        let first = MAX_ROWS - count;
        same_bits(&format!("{context}, {count} rows from {first}"), &rows(first, count), &alone[first * width..]);
    }
}

/// `values` as rows of `width`: those from `first` on.
fn some(values: &[f32], width: usize, first: usize, count: usize) -> &[f32] {
    &values[first * width..(first + count) * width]
}

#[test]
fn matmul_rows_do_not_depend_on_each_other() {
    let mut random = Random::new(81);
    for (index, plan) in plans().into_iter().enumerate() {
        let variants: Vec<_> = FORMATS.iter().flat_map(|&format| ENDINGS.map(|ending| (format, ending))).collect();
        let some_variants = [[0, 5], [4, 8], [2, 6], [7, 3], [1, 5]];
        let chosen = if sweep() { (0..9).collect() } else { some_variants[index].to_vec() };
        for (format, ending) in chosen.into_iter().map(|at| variants[at]) {
            matmul_rows_alone_and_together(plan, format, ending, &mut random);
        }
    }
}

fn matmul_rows_alone_and_together(plan: KernelPlan, format: WeightFormat, ending: Ending, random: &mut Random) {
    let (outputs, depth) = (65, 136);
    let product = Product::new(device(), plan, format, [outputs, depth], ending, random);
    let x = random.normals(MAX_ROWS * depth, 1.0);
    let residual = random.normals(MAX_ROWS * outputs, 1.0);
    let context = format!("matmul, {format:?}, {ending:?}, {plan}");
    rows_alone_and_together(&context, outputs, |first, count| {
        let [x, residual] = [some(&x, depth, first, count), some(&residual, outputs, first, count)];
        product.run(Phase::Decode, x, residual)
    });
}

fn gate_and_up_rows_alone_and_together(plan: KernelPlan, format: WeightFormat, random: &mut Random) {
    let (outputs, depth) = (65, 136);
    let product = GateUp::new(plan, format, [outputs, depth], random);
    let x = random.normals(MAX_ROWS * depth, 1.0);
    let context = format!("gate and up, {format:?}, {plan}");
    rows_alone_and_together(&context, outputs, |first, count| {
        product.run(Phase::Decode, some(&x, depth, first, count))
    });
    // The prompt's kernel gives the same: cooperative products have one order of sums for all.
    if plan.products != MatmulPath::Plain {
        same_bits(
            &format!("{context}, as a prompt"),
            &product.run(Phase::Prefill, &x),
            &product.run(Phase::Decode, &x),
        );
    }
}

#[test]
fn rows_by_quantised_weights_do_not_depend_on_each_other() {
    let mut random = Random::new(87);
    let (outputs, depth) = (65, 256);
    for (index, format) in WeightFormat::quantised().enumerate() {
        let integers = match sweep() {
            true => INTEGER_PLANS.to_vec(),
            false => vec![INTEGER_PLANS[index % 2], INTEGER_PLANS[2 + index % 2]],
        };
        let plans = [device().default_plan(), GPU_PLANS[index % 3]].into_iter().chain(integers);
        for (number, plan) in plans.enumerate() {
            let blocks = Blocks::new(format, 2 * outputs, depth, &mut random);
            let x = random.normals(MAX_ROWS * depth, 1.0);
            let matrices = [
                (2 * outputs, blocks.upload(device(), &plan), Epilogue::Store),
                (outputs, blocks.upload_pair(device(), &plan), Epilogue::Swiglu),
            ];
            // One of the two for each plan, unless both are asked for.
            let chosen = |at: usize| sweep() || at == (index + number) % 2;
            for (_, (outputs, matrix, finish)) in matrices.into_iter().enumerate().filter(|&(at, _)| chosen(at)) {
                rows_alone_and_together(&format!("{format:?}, {plan}"), outputs, |first, count| {
                    product(device(), &plan, &matrix, finish, Phase::Decode, some(&x, depth, first, count))
                });
            }
        }
    }
}

/// A measured table may choose any variant for any number of rows.
#[test]
fn every_variant_of_a_product_gives_the_same_bits() {
    const SOME: [[usize; 3]; 2] = [[1, 7, 13], [2, 12, MAX_ROWS]];
    let mut random = Random::new(86);
    let formats = [
        (WeightFormat::Bf16, 136),
        (WeightFormat::Q8_0, 96),
        (WeightFormat::Q6K, 256),
        (WeightFormat::Q8_0, 96),
        (WeightFormat::Q4K, 512),
    ];
    for (index, (format, depth)) in formats.into_iter().enumerate() {
        let usual = device().default_plan();
        let plan = [usual, GPU_PLANS[0], usual, INTEGER_PLANS[0], INTEGER_PLANS[1]][index];
        for (pair, finish) in [(1, Epilogue::Store), (2, Epilogue::Swiglu)] {
            let outputs = 65;
            let values = random.normals(2 * outputs * depth, 0.2);
            let source = |range: std::ops::Range<usize>, out: &mut [f32]| {
                out.copy_from_slice(&values[range.start * depth..range.end * depth]);
                Ok(())
            };
            let shape = [outputs, depth];
            let weights = match pair {
                1 => Matrix::upload(device(), &plan, "weights", format, shape, &source),
                _ => Matrix::of_pair(device(), &plan, "weights", format, shape, Source::Values(&source)),
            };
            let x = input(device(), depth, &random.normals(MAX_ROWS * depth, 1.0));
            let y = output(device(), MAX_ROWS, outputs);
            let step = Buffer::shared::<Step>(device(), "step").expect("a small buffer");
            let op = Matmul::new(device(), &plan, &step, &weights.expect("weights"), [&x, &y], finish, RowRange::All)
                .expect("shapes that fit");
            let run = |variant: Option<Variant>, rows: usize| {
                step.write(device(), 0, &[Step { rows: rows as u32, ..Step::default() }]);
                poison(device(), &y.buffer);
                submit(device(), |pass| match variant {
                    Some(variant) => op.encode_as(pass, variant, rows).expect("a kernel that compiles"),
                    None => op.encode(pass, Phase::Decode, rows).expect("a kernel that compiles"),
                });
                read(device(), "matmul", &y, rows)
            };
            let usual = run(None, MAX_ROWS);
            for rows in if sweep() { (1..=MAX_ROWS).collect() } else { SOME[pair as usize - 1].to_vec() } {
                for variant in Variant::candidates([plan.lanes, plan.slices], rows, pair) {
                    let context = format!("{variant:?}, {rows} rows, {format:?}, {plan}");
                    same_bits(&context, &run(Some(variant), rows), &usual[..rows * outputs]);
                }
            }
        }
    }
}

#[test]
fn attention_rows_do_not_depend_on_each_other() {
    let mut random = Random::new(82);
    for (index, plan) in plans().into_iter().enumerate() {
        let shapes = [(3, 64), (1, 32), (7, 64), (16, 32), (2, 128)];
        let chosen = if sweep() { shapes.to_vec() } else { vec![shapes[index]] };
        for (group, head_dim) in chosen {
            let shape = AttentionShape { heads: group, kv_heads: 1, head_dim };
            let mut layer = Layer::new(device(), plan, shape, 600, &mut random);
            let width = group * head_dim;
            let query = random.normals(MAX_ROWS * width, 2.0);
            for window in [None, Some([7, 65, 300, 1, 256][index])] {
                layer = layer.windowed(window);
                // Among these rows are the last of one part and the first of the next.
                for start in [0, 48, 240, 500] {
                    let context = format!("attention, {shape:?}, window {window:?}, {plan}, from {start}");
                    rows_alone_and_together(&context, width, |first, count| {
                        layer.run(Phase::Decode, some(&query, width, first, count), start + first)
                    });
                }
            }
        }
    }
}

/// A device, and one day a measured table, may choose any way to walk the keys for any number of rows.
#[test]
fn every_variant_of_attention_gives_the_same_bits() {
    let mut random = Random::new(88);
    let plans = [gpu_plan(CacheFormat::F16), gpu_plan(CacheFormat::Q8_0), GPU_PLANS[1], plan(CacheFormat::F16)];
    let shapes = [(3, 64), (4, 128), (1, 32), (16, 32)];
    for (index, plan) in plans.into_iter().enumerate() {
        let chosen = if sweep() { shapes.to_vec() } else { vec![shapes[index]] };
        for (group, head_dim) in chosen {
            let shape = AttentionShape { heads: group, kv_heads: 1, head_dim };
            let width = group * head_dim;
            let query = random.normals(MAX_ROWS * width, 2.0);
            // Every other plan without one, unless all are asked for.
            let windows = [None, Some([600, 65, 1, 300][index])];
            for window in if sweep() { windows.to_vec() } else { vec![windows[index % 2]] } {
                let layer = Layer::new(device(), plan, shape, 1400, &mut random).windowed(window);
                // Rows that all lie in a third block of parts, and such as cross into one.
                for (start, counts) in [(1100, &[1, 2, 13][..]), (1010, &[7, MAX_ROWS][..])] {
                    let alone = |row: usize| layer.run(Phase::Decode, some(&query, width, row, 1), start + row);
                    let alone: Vec<f32> = (0..counts[counts.len() - 1]).flat_map(alone).collect();
                    for &count in counts {
                        for (variant, got) in layer.run_every_variant(&query[..count * width], start) {
                            let context = format!("{variant:?}, {count} rows, {shape:?}, window {window:?}, {plan}");
                            same_bits(&context, &got, &alone[..count * width]);
                        }
                    }
                }
            }
        }
    }
}

/// So many rows and heads that workgroups walk blocks of parts, where a row alone leaves its parts to the merge.
#[test]
fn attention_of_many_rows_walks_blocks_with_the_same_bits() {
    let mut random = Random::new(89);
    let shape = AttentionShape { heads: 64, kv_heads: 64, head_dim: 32 };
    let (width, start) = (64 * 32, 1000);
    let layer = Layer::new(device(), gpu_plan(CacheFormat::F16), shape, 1040, &mut random);
    let query = random.normals(MAX_ROWS * width, 2.0);
    let together = layer.run(Phase::Decode, &query, start);
    for row in [0, 1, 17, 23, 24, MAX_ROWS - 1] {
        let alone = layer.run(Phase::Decode, some(&query, width, row, 1), start + row);
        same_bits(&format!("row {row} of {MAX_ROWS}"), some(&together, width, row, 1), &alone);
    }
}

#[test]
fn rows_of_the_other_kernels_do_not_depend_on_each_other() {
    let mut random = Random::new(83);
    let width = 136;
    let (x, gain) = (random.normals(MAX_ROWS * 2 * width, 1.0), random.normals(width, 1.0));
    rows_alone_and_together("rms_norm", width, |first, count| {
        rms_norm::run(device(), some(&x, width, first, count), &gain, 1e-5, None)
    });
    rows_alone_and_together("rms_norm of outputs", width, |first, count| {
        rms_norm::run(device(), &x[..(first + count) * width], &gain, 1e-5, Some(first))
    });
    rows_alone_and_together("swiglu", width, |first, count| {
        swiglu::run(device(), width, some(&x, 2 * width, first, count))
    });
    let ids = random.indices(MAX_ROWS, 33);
    for format in FORMATS {
        let values = matmul::values_in(format, &mut random, 33 * width, 1.0);
        let table = matmul::upload(device(), &device().default_plan(), format, [33, width], &values);
        rows_alone_and_together("embedding", width, |first, count| {
            embedding::run(device(), &table, &ids[first..first + count])
        });
    }
}

#[test]
fn rotated_rows_do_not_depend_on_each_other() {
    let mut random = Random::new(84);
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 64 };
    let (start, width) = (40, shape.qkv_width());
    let angles = rope::Angles::random(&mut random, start + MAX_ROWS, 64);
    let qkv = random.normals(MAX_ROWS * width, 1.0);
    let gain = vector(device(), &random.normals(64, 1.0));
    for cache in CacheFormat::ALL {
        for gains in [None, Some(RopeGains { query: &gain, key: &gain, epsilon: 1e-6 })] {
            let context = format!("rope, {cache:?}, normed {}", gains.is_some());
            rows_alone_and_together(&context, (4 + 2 + 2) * 64, |first, count| {
                let at = start + first;
                let got = rope::run(device(), &plan(cache), shape, &angles, some(&qkv, width, first, count), at, gains);
                let cached = |values: &[f32], row: usize| -> Vec<f32> {
                    (0..2).flat_map(|head| some(values, 64, head * got.capacity + at + row, 1).to_vec()).collect()
                };
                let query = |row| some(&got.query, 4 * 64, row, 1).to_vec();
                (0..count)
                    .flat_map(|row| [query(row), cached(&got.keys, row), cached(&got.values, row)].concat())
                    .collect()
            });
        }
    }
}

#[test]
fn prompt_kernels_give_the_same_bits_however_a_prompt_is_cut() {
    prompts_whole_and_cut(plans());
}

fn prompts_whole_and_cut(plans: Vec<KernelPlan>) {
    let mut random = Random::new(85);
    for (index, plan) in plans.into_iter().enumerate() {
        let pieces = [1, 7, 33, 8, 21];
        let rows: usize = pieces.iter().sum();
        let (outputs, depth) = (65, 136);
        let product =
            Product::new(device(), plan, FORMATS[index % 3], [outputs, depth], ENDINGS[index % 3], &mut random);
        let [x, residual] = [depth, outputs].map(|width| random.normals(rows * width, 1.0));
        let shape = AttentionShape { heads: 3, kv_heads: 1, head_dim: 64 };
        let layer = Layer::new(device(), plan, shape, 300, &mut random);
        let query = random.normals(rows * 3 * 64, 2.0);
        let run = |first: usize, count: usize| {
            let [part, before] = [some(&x, depth, first, count), some(&residual, outputs, first, count)];
            let projected = product.run(Phase::Prefill, part, before);
            (projected, layer.run(Phase::Prefill, some(&query, 3 * 64, first, count), 200 + first))
        };
        let whole = run(0, rows);
        let mut parts = (Vec::new(), Vec::new());
        let mut first = 0;
        for count in pieces {
            let (projected, attended) = run(first, count);
            parts.0.extend(projected);
            parts.1.extend(attended);
            first += count;
        }
        same_bits(&format!("matmul, {plan}"), &parts.0, &whole.0);
        same_bits(&format!("attention, {plan}"), &parts.1, &whole.1);
    }
}

/// Models of all families under plans that turn; in a sweep under all plans.
fn every_model(plans: &[KernelPlan], mut case: impl FnMut(&str, &Recipe, &dyn Fn() -> ModelRunner)) {
    let others = [Recipe::mistral(4), Recipe::partly_windowed(4), Recipe::qwen3_moe(4)];
    for (index, recipe) in Recipe::each_family(4).into_iter().chain(others).enumerate() {
        for (turn, plan) in plans.iter().enumerate() {
            if !sweep() && turn > 0 && turn % 3 != index {
                continue;
            }
            let model = upload(&recipe, plan);
            let sequence = || {
                let choices = Buffer::storage(device(), "choices", 128).expect("a small buffer");
                ModelRunner::new(&model, 600, recipe.config.vocab_size, &choices).expect("a small model fits")
            };
            case(&format!("{:?}, {plan}", recipe.config.family), &recipe, &sequence);
        }
    }
}

/// The logits of `rows` rows from `first` on, in one pass.
fn logits(sequence: &ModelRunner, tokens: &[u32], first: usize, rows: usize) -> Vec<f32> {
    sequence.run(Phase::Decode, &tokens[first..first + rows], first, rows).expect("rows");
    sequence.logits(rows).expect("logits")
}

#[test]
fn logits_of_rows_at_once_are_those_one_by_one() {
    logits_at_once_and_one_by_one(&plans());
}

fn logits_at_once_and_one_by_one(plans: &[KernelPlan]) {
    every_model(plans, |context, recipe, sequence| {
        // The rows cross a part of attention's keys under every plan.
        let (prompt, rows) = (250, if sweep() { MAX_ROWS } else { 13 });
        let tokens = Random::new(91).indices(prompt + rows + 1, recipe.config.vocab_size);
        let [single, whole] = [sequence(), sequence()];
        for sequence in [&single, &whole] {
            sequence.prefill(&tokens[..prompt], 0).expect("prefill");
        }
        let one_by_one: Vec<f32> = (0..rows).flat_map(|row| logits(&single, &tokens, prompt + row, 1)).collect();
        same_bits(context, &logits(&whole, &tokens, prompt, rows), &one_by_one);
        // And once more in two pieces, over rows that were fed before; then what follows them all.
        let cut = rows / 3;
        let pieces = [logits(&whole, &tokens, prompt, cut), logits(&whole, &tokens, prompt + cut, rows - cut)].concat();
        same_bits(&format!("{context}, in two pieces"), &pieces, &one_by_one);
        let next = [&single, &whole].map(|sequence| logits(sequence, &tokens, prompt + rows, 1));
        same_bits(&format!("{context}, the row after"), &next[0], &next[1]);
    });
}

#[test]
fn logits_do_not_depend_on_how_the_prompt_was_cut() {
    every_model(&plans(), |context, recipe, sequence| {
        let tokens = Random::new(92).indices(300, recipe.config.vocab_size);
        let [whole, cut] = [sequence(), sequence()];
        whole.prefill(&tokens[..290], 0).expect("prefill");
        let mut first = 0;
        for rows in [1, 7, 56, 33, 64, 95, 34] {
            cut.prefill(&tokens[first..first + rows], first).expect("prefill");
            first += rows;
        }
        let next = [&whole, &cut].map(|sequence| logits(sequence, &tokens, 290, 10));
        same_bits(context, &next[1], &next[0]);
    });
}

/// Repeats the tests above for cooperative products.
#[test]
fn rows_of_cooperative_products_do_not_depend_on_each_other() {
    let Some(plan) = cooperative_plan("batch invariance of cooperative products") else { return };
    let mut random = Random::new(86);
    for format in FORMATS {
        let endings = if sweep() { ENDINGS.to_vec() } else { vec![Ending::Store] };
        endings.into_iter().for_each(|ending| matmul_rows_alone_and_together(plan, format, ending, &mut random));
    }
    for (format, lanes) in [(WeightFormat::Bf16, 8), (WeightFormat::F32, 32)] {
        gate_and_up_rows_alone_and_together(KernelPlan { lanes, ..plan }, format, &mut random);
    }
    prompts_whole_and_cut(vec![plan; 3]);
    logits_at_once_and_one_by_one(&[plan]);
}
