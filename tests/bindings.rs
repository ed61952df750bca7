//! Everything that binds and dispatches, on wgpu's `noop` backend: no GPU, but all of its checks, under the limits that
//! every WebGPU adapter has. And what the ops refuse before they reach the device.

use std::sync::Arc;

use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{
    Buffer, CacheFormat, Device, KernelPlan, MatmulChoice, MatmulPath, QuantisedChoice, QuantisedProducts,
};
use pard::low_level::ops::gradients::{
    Accumulate, ColumnSum, GainGradients, InputGradient, PackedAttention, PackedAttentionGradient, RopeGradient,
    Swiglu, SwigluGradient, TrainingRow, WeightGradient,
};
use pard::low_level::ops::{
    Argmax, Attention, AttentionScratch, AttentionShape, Constrain, Embedding, Epilogue, Gather, KvCache,
    LogProbabilities, MAX_ROWS, MaskRow, Matmul, Matrix, Penalties, PenaltyTerms, Phase, Probabilities, QuantiseRows,
    Rejection, RejectionTerms, RmsNorm, Rope, RopeGains, RowRange, Source, Step, Tensor, Truncation, WeightFormat,
};
use pard::model::{LoadOptions, WeightDtype, Weights};
use pard::{Error, Result};

use crate::ops::integer::INTEGER_PLANS;
use crate::ops::matmul::GPU_PLANS;
use crate::support::every_op::build_and_record;
use crate::support::gpu::{noop, noop_with_cooperative_matrices};
use crate::support::memory::Memory;
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

#[test]
fn every_op_builds_and_records_without_a_gpu() {
    let device = noop();
    for plan in [device.default_plan()].into_iter().chain(GPU_PLANS).chain(INTEGER_PLANS) {
        build_and_record(&device, &plan);
    }
}

#[test]
fn cooperative_products_build_and_record_without_a_gpu() {
    let device = noop_with_cooperative_matrices();
    for tile in [8, 16] {
        build_and_record(&device, &KernelPlan { products: MatmulPath::Cooperative { tile }, ..device.default_plan() });
    }
}

#[test]
fn cooperative_products_are_refused_where_there_are_none() {
    let options = LoadOptions::default().products(MatmulChoice::Cooperative);
    assert!(matches!(options.plan(&noop()), Err(Error::Option { option: pard::error::OptionName::Products, .. })));
}

#[test]
fn integers_are_chosen_where_they_are_asked_for() {
    let plan = |quantised: QuantisedChoice, products: MatmulChoice, device: &Device| {
        LoadOptions::default().quantised(quantised).products(products).plan(device)
    };
    let (plain, device) = (MatmulChoice::Plain, noop());
    let cases = [
        (QuantisedChoice::Auto, QuantisedProducts::Float),
        (QuantisedChoice::Float, QuantisedProducts::Float),
        (QuantisedChoice::Integer16, QuantisedProducts::Integer { planes: 2 }),
        (QuantisedChoice::Integer8, QuantisedProducts::Integer { planes: 1 }),
    ];
    for (choice, expected) in cases {
        assert_eq!(plan(choice, plain, &device).expect("a plan").quantised, expected, "{choice:?}");
    }
    let text = plan(QuantisedChoice::Integer16, plain, &device).expect("a plan").to_string();
    assert!(text.contains("integers of 16 bits for quantised weights"), "{text}");
    let of = |choice| QuantisedProducts::of(choice, MatmulPath::Cooperative { tile: 16 }, &device);
    assert_eq!(of(QuantisedChoice::Auto).expect("floats"), QuantisedProducts::Float);
    assert!(matches!(
        of(QuantisedChoice::Integer16),
        Err(Error::Option { option: pard::error::OptionName::Quantised, .. })
    ));
}

#[test]
fn every_family_builds_and_runs_without_a_gpu() {
    let device = noop();
    for recipe in Recipe::each_family(1).into_iter().chain([Recipe::partly_mixed(1)]) {
        let memory = Memory::new(recipe.tensors());
        let tokens = Random::new(2).indices(100, recipe.config.vocab_size);
        for plan in [device.default_plan()].into_iter().chain(GPU_PLANS) {
            for choice in [WeightDtype::Compact, WeightDtype::F32] {
                let model = Weights::upload(&device, &plan, &recipe.config, &memory, choice, &|_, _| ());
                let model = Arc::new(model.expect("upload"));
                let choices = Buffer::storage(&device, "choices", 128).expect("a small buffer");
                let sequence = ModelRunner::new(&model, 600, recipe.config.vocab_size, &choices).expect("bindings");
                sequence.prefill(&tokens, 0).expect("prompt rows");
                for rows in [1, 2, 9, MAX_ROWS] {
                    sequence.run(Phase::Decode, &tokens[..rows], 100, rows).expect("rows of a round");
                }
                device.wait().expect("nothing was refused");
            }
        }
    }
}

/// A refusal names the op and the operand at fault.
fn refused<T>(outcome: Result<T>, op: &str, tensor: &str) {
    match outcome.map(drop) {
        Err(Error::Shape { op: got_op, tensor: got_tensor, .. }) => assert_eq!((got_op, got_tensor), (op, tensor)),
        other => panic!("{op}: {tensor}: {other:?}"),
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let device = &noop();
    let plan = &KernelPlan { cache: CacheFormat::F16, ..device.default_plan() };
    let tensor = |rows, width| Tensor::new(device, "rows", rows, width).expect("a small tensor");
    let vector = |width| tensor(1, width);
    let buffer = |bytes| Buffer::storage(device, "words", bytes).expect("a small buffer");
    let step = Buffer::shared::<Step>(device, "step").expect("a small buffer");
    let (ids, rows) = (buffer(256), MAX_ROWS);
    let upload = |shape| Matrix::upload(device, plan, "weights", WeightFormat::Bf16, shape, &|_, _| Ok(()));
    for shape in [[8, 12], [8, 0], [0, 8]] {
        refused(upload(shape), "matmul", "weights");
    }
    let matrix = upload([24, 16]).expect("a small matrix");
    refused(Embedding::new(device, &matrix, None, &ids, &tensor(rows, 24)), "embedding", "y");
    refused(Embedding::new(device, &matrix, None, &ids, &tensor(rows - 1, 16)), "embedding", "y");

    let mask = |row: &Tensor| {
        Embedding::new(device, &matrix, Some(MaskRow { id: 99, row }), &ids, &tensor(rows, 16)).map(drop)
    };
    refused(mask(&vector(24)), "embedding", "mask");
    assert!(mask(&vector(16)).is_ok());
    refused(matrix.gather(device, "gathered", &[]), "gather", "ids");
    let four = |width| Tensor::new(device, "rows", 4, width).expect("rows");
    let [even, odd] = [8, 6].map(four);
    let ids = Buffer::storage(device, "ids", 16).expect("ids");
    assert!(Gather::new(device, &ids, [&odd, &odd]).is_ok());
    refused(Gather::new(device, &ids, [&even, &odd]), "gather", "y");
    let more = Tensor::new(device, "more", 5, 8).expect("rows");
    refused(Gather::new(device, &ids, [&even, &more]), "gather", "ids");
    assert!(matches!(matrix.gather(device, "gathered", &[3, 24]), Err(Error::TokenRange { id: 24, vocab: 24, .. })));

    let matmul = |x: &Tensor, y: &Tensor, finish: Epilogue| {
        Matmul::new(device, plan, &step, &matrix, [x, y], finish, RowRange::All)
    };
    refused(matmul(&tensor(rows, 24), &tensor(rows, 24), Epilogue::Store), "matmul", "x");
    refused(QuantiseRows::new(device, &tensor(rows, 24), 2), "quantise_rows", "x");
    refused(QuantiseRows::new(device, &tensor(rows - 1, 32), 2), "quantise_rows", "x");
    refused(matmul(&tensor(rows - 1, 16), &tensor(rows, 24), Epilogue::Store), "matmul", "x");
    refused(matmul(&tensor(rows, 16), &tensor(rows, 16), Epilogue::Store), "matmul", "y");
    refused(matmul(&tensor(rows, 16), &tensor(rows, 24), Epilogue::Bias(&vector(16))), "matmul", "bias");

    let norm =
        |x: &Tensor, y: &Tensor, gain: usize| RmsNorm::new(device, &step, [x, y], &vector(gain), 1e-5, RowRange::All);
    refused(norm(&tensor(rows, 6), &tensor(rows, 6), 6), "rms_norm", "x");
    refused(norm(&tensor(rows, 16), &tensor(rows, 16), 12), "rms_norm", "gain");
    refused(norm(&tensor(rows, 16), &tensor(rows, 20), 16), "rms_norm", "y");
    refused(matmul(&tensor(rows, 16), &tensor(rows, 24), Epilogue::Swiglu), "matmul", "weights");
    let pair = Matrix::of_pair(device, plan, "weights", WeightFormat::Bf16, [24, 16], Source::Values(&|_, _| Ok(())));
    let pair = pair.expect("a small matrix");
    refused(pair.gather(device, "gathered", &[0]), "gather", "ids");
    let gated = |y: &Tensor, finish: Epilogue| {
        Matmul::new(device, plan, &step, &pair, [&tensor(rows, 16), y], finish, RowRange::All)
    };
    refused(gated(&tensor(rows, 24), Epilogue::Store), "matmul", "weights");
    refused(gated(&tensor(rows, 48), Epilogue::Swiglu), "matmul", "y");
    for limit in [0, 17] {
        let op = Argmax::new(device, [&step, &step], None, 0, &tensor(rows, 16), limit, None, &ids);
        refused(op, "argmax", "limit");
    }
    let vocabulary = buffer(48);
    let op = Argmax::new(device, [&step, &step], None, 0, &tensor(rows, 16), 16, Some(&vocabulary), &ids);
    refused(op, "argmax", "vocabulary");

    let terms = PenaltyTerms {
        batch: &step,
        sampling: &step,
        sessions: &ids,
        proposals: &ids,
        counts: &ids,
        bias: &ids,
        ids: 16,
    };
    let penalties = |to: &Tensor, limit| Penalties::new(device, terms, 0, [&tensor(rows, 16), to], limit, None);
    refused(penalties(&tensor(rows, 17), 16), "penalties", "adjusted");
    refused(penalties(&tensor(rows, 16), 17), "penalties", "limit");
    let constrain = Constrain::new(device, [&step, &step], &ids, 16, 0, &tensor(rows, 16), 17, None);
    refused(constrain, "constrain", "limit");
    for limit in [0, 17] {
        let op = Truncation::new(device, [&step, &step], 0, &tensor(rows, 16), limit, &ids);
        refused(op, "truncation", "limit");
    }
    let chances =
        |limit, to: &Tensor| Probabilities::new(device, [&step, &step], 0, &tensor(rows, 16), limit, None, None, to);
    refused(chances(17, &tensor(rows, 20)), "probabilities", "limit");
    refused(chances(16, &tensor(rows, 15)), "probabilities", "limit");
    let (target, draft) = (&tensor(rows, 16), &tensor(rows, 17));
    let terms = RejectionTerms { target, draft, proposals: &ids };
    refused(Rejection::new(device, [&step, &step, &step], terms, &ids), "rejection", "draft");
    for limit in [0, 17] {
        let x = &tensor(rows, 16);
        let op = LogProbabilities::new(device, [&step, &step], x, limit, None, &ids, &ids, [18, 20]);
        refused(op, "log_probabilities", "limit");
    }

    let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 32 };
    let cache = KvCache::new(device, plan, &shape, 100).expect("a small cache");
    let scratch = AttentionScratch::new(device, plan, &shape, 100).expect("small scratch");
    let angles = buffer(128 * 32 * 4);
    let rope = |qkv: &Tensor, query: &Tensor, gains: Option<RopeGains>| {
        Rope::new(device, &step, &shape, &angles, [qkv, query], &cache, gains)
    };
    let (qkv, query) = (tensor(rows, 128), tensor(rows, 64));
    refused(rope(&query, &query, None), "rope", "qkv");
    refused(rope(&qkv, &qkv, None), "rope", "query");
    let (short, right) = (vector(16), vector(32));
    fn gains<'a>(query: &'a Tensor, key: &'a Tensor) -> Option<RopeGains<'a>> {
        Some(RopeGains { query, key, epsilon: 1e-6 })
    }
    refused(rope(&qkv, &query, gains(&short, &right)), "rope", "query gain");
    refused(rope(&qkv, &query, gains(&right, &short)), "rope", "key gain");
    let attention = |query: &Tensor, out: &Tensor| {
        Attention::new(device, plan, &step, &shape, None, &cache, &scratch, [query, out])
    };
    refused(attention(&qkv, &query), "attention", "query");
    refused(attention(&query, &qkv), "attention", "out");
}

#[test]
fn operands_of_gradients_that_do_not_fit_are_refused() {
    let device = &noop();
    let plan = &device.default_plan();
    let tensor = |rows, width| Tensor::new(device, "rows", rows, width).expect("a small tensor");
    let step = Buffer::shared::<Step>(device, "step").expect("a small buffer");
    let matrix = Matrix::upload(device, plan, "weights", WeightFormat::F32, [24, 16], &|_, _| Ok(()));
    let pair = Matrix::of_pair(device, plan, "weights", WeightFormat::F32, [24, 16], Source::Values(&|_, _| Ok(())));
    let (matrix, pair) = (matrix.expect("a small matrix"), pair.expect("a small matrix"));
    let (x, y) = (tensor(40, 16), tensor(40, 24));

    let by_input = |weights: &Matrix, dy: &Tensor, dx: &Tensor| {
        InputGradient::new(device, &step, weights, [dy, dx], Accumulate::Store, RowRange::All)
    };
    refused(by_input(&pair, &y, &x), "input_gradient", "weights");
    refused(by_input(&matrix, &x, &x), "input_gradient", "dy");
    refused(by_input(&matrix, &y, &y), "input_gradient", "dx");
    refused(by_input(&matrix, &y, &tensor(39, 16)), "input_gradient", "dx");

    let gradients = matrix.gradients(device).expect("small gradients");
    let by_weights = |weights: &Matrix, x: &Tensor, dy: &Tensor, gradients: &[Buffer]| {
        WeightGradient::new(device, &step, weights, [x, dy], gradients)
    };
    refused(by_weights(&pair, &x, &y, &gradients), "weight_gradient", "weights");
    refused(by_weights(&matrix, &y, &y, &gradients), "weight_gradient", "x");
    refused(by_weights(&matrix, &tensor(39, 16), &y, &gradients), "weight_gradient", "x");
    refused(by_weights(&matrix, &x, &x, &gradients), "weight_gradient", "dy");
    refused(by_weights(&matrix, &x, &y, &[]), "weight_gradient", "gradients");
    let short = [Buffer::storage(device, "short", 64).expect("a small buffer")];
    refused(by_weights(&matrix, &x, &y, &short), "weight_gradient", "gradients");
    refused(ColumnSum::new(device, &step, &y, &short[0]), "column_sum", "sums");

    refused(Swiglu::new(device, [&y, &x]), "swiglu", "x");
    refused(Swiglu::new(device, [&tensor(39, 32), &x]), "swiglu", "x");
    refused(SwigluGradient::new(device, [&y, &x, &tensor(40, 32)]), "swiglu_gradient", "x");
    refused(SwigluGradient::new(device, [&tensor(40, 32), &x, &y]), "swiglu_gradient", "dx");

    refused(pair.read_rows(device), "read_rows", "weights");
    refused(pair.write_rows(device, &[0.0; 48 * 16]), "write_rows", "weights");
    refused(matrix.write_rows(device, &[0.0; 23 * 16]), "write_rows", "values");
}

#[test]
fn operands_of_training_that_do_not_fit_are_refused() {
    let device = &noop();
    let plan = &KernelPlan { cache: CacheFormat::F32, ..device.default_plan() };
    let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 32 };
    let rows = 70;
    let tensor = |rows, width| Tensor::new(device, "rows", rows, width).expect("a small tensor");
    let step = Buffer::shared::<Step>(device, "step").expect("a small buffer");
    let training_rows = Buffer::with_values(device, "rows", &vec![TrainingRow::default(); rows]).expect("small");
    let angles = Buffer::storage(device, "angles", 4 * 32 * rows as u64).expect("a small buffer");
    let cache = |rows| KvCache::new(device, plan, &shape, rows).expect("a small cache");
    let (all, one, log_sums, short) = (tensor(rows, 64), tensor(rows, 32), tensor(rows, 2), tensor(rows - 1, 64));
    let (fitting, small) = (cache(rows), cache(64));
    let attention = |cache: &KvCache, operands: [&Tensor; 2], log_sums: &Tensor| {
        PackedAttention::new(device, &step, &shape, &training_rows, cache, operands, log_sums)
    };
    refused(attention(&fitting, [&short, &all], &log_sums), "packed_attention", "query");
    refused(attention(&fitting, [&all, &one], &log_sums), "packed_attention", "out");
    refused(attention(&fitting, [&all, &all], &one), "packed_attention", "log_sums");
    refused(attention(&small, [&all, &all], &log_sums), "packed_attention", "cache");
    let gradient = |given: &Tensor, by: [&Tensor; 3]| {
        let operands = [&all, &all];
        let rows = &training_rows;
        PackedAttentionGradient::new(device, &step, &shape, rows, &fitting, operands, &log_sums, given, by)
    };
    refused(gradient(&one, [&all, &one, &one]), "packed_attention_gradient", "output_gradient");
    refused(gradient(&all, [&short, &one, &one]), "packed_attention_gradient", "query_gradient");
    refused(gradient(&all, [&all, &all, &one]), "packed_attention_gradient", "key_gradient");
    refused(gradient(&all, [&all, &one, &all]), "packed_attention_gradient", "value_gradient");

    let (qkv, gain) = (tensor(rows, 128), tensor(1, 32));
    let rope = |by: [&Tensor; 3], to: &Tensor, norm: Option<GainGradients>| {
        RopeGradient::new(device, &step, &shape, &angles, by, to, norm)
    };
    refused(rope([&all, &one, &one], &all, None), "rope_gradient", "qkv_gradient");
    refused(rope([&short, &one, &one], &qkv, None), "rope_gradient", "query_gradient");
    refused(rope([&all, &all, &one], &qkv, None), "rope_gradient", "key_gradient");
    refused(rope([&all, &one, &all], &qkv, None), "rope_gradient", "value_gradient");
    let norm = |qkv, gains, gradients| {
        rope([&all, &one, &one], &tensor(rows, 128), Some(GainGradients { qkv, gains, gradients, epsilon: 1e-6 }))
    };
    refused(norm(&all, [&gain, &gain], [&gain, &gain]), "rope_gradient", "qkv");
    refused(norm(&qkv, [&qkv, &gain], [&gain, &gain]), "rope_gradient", "query gain");
    refused(norm(&qkv, [&gain, &qkv], [&gain, &gain]), "rope_gradient", "key gain");
    refused(norm(&qkv, [&gain, &gain], [&qkv, &gain]), "rope_gradient", "query gain gradient");
    refused(norm(&qkv, [&gain, &gain], [&gain, &qkv]), "rope_gradient", "key gain gradient");
}

/// wgpu reports a wrong binding; a kernel must not be dispatched with one.
#[test]
fn wrong_bindings_are_refused() {
    let device = &noop();
    let kernel = device
        .kernel(&["argmax", "shared/reduce", "shared/lowest", "noise/none"], &[("SECTION", 64)])
        .expect("a kernel");
    let buffer = || Buffer::storage(device, "rows", 64).expect("a small buffer");
    let (logits, candidates) = (buffer(), buffer());
    let params = Buffer::uniform(device, "params", &[1u32; 2]).expect("a small buffer");
    assert!(kernel.bind(device, &[&params, &logits]).is_err(), "a buffer is missing");
    assert!(kernel.bind(device, &[&logits, &logits, &candidates]).is_err(), "not a uniform");
    assert!(kernel.bind(device, &[&params, &params, &candidates]).is_err(), "not a storage buffer");
    assert!(kernel.bind(device, &[&params, &logits, &candidates]).is_ok());
    let unknown = Device::kernel(device, &["no such file"], &[]);
    assert!(matches!(unknown.map(drop), Err(Error::Gpu { what, .. }) if what.contains("no such file")));
}
