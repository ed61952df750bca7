//! Builds and records every op in every variant that a model can lead to: what the tests of shaders and bindings run.

use pard::low_level::gpu::{Buffer, CacheFormat, Device, KernelPlan, Pass};
use pard::low_level::ops::gradients::{
    Accumulate, AdamW, AdamWStep, ColumnSum, CrossEntropy, EmbeddingGradient, GainGradients, GradientNorm,
    InputGradient, MomentFormat, PackedAttention, PackedAttentionGradient, Readers, RmsNormGradient, RopeGradient,
    Swiglu, SwigluGradient, TrainingRow, WeightGradient,
};
use pard::low_level::ops::{
    Accept, Argmax, Attention, AttentionScratch, AttentionShape, BuildInputs, Constrain, Draw, Embedding, Epilogue,
    ExpertMatmul, ExpertMatrix, ExpertRoute, ExpertSizes, ExpertSum, Gather, Keep, KeptStates, KvCache,
    LogProbabilities, MAX_ROWS, MaskRow, Matmul, Matrix, Mixture, ModelRole, NormRows, PassRow, PeakProbe, Penalties,
    PenaltyTerms, Phase, Probabilities, Recall, Rejection, RejectionTerms, Remember, RmsNorm, Rope, RopeGains,
    RoundBuffers, Routing, RowRange, Rows, Session, Source, StateNorm, Step, Tensor, TokenCounts, Truncation, Turn,
    TurnSampling, Variant, WeightFormat,
};

/// Shapes of published models, and the extremes that a configuration may have.
const SHAPES: [AttentionShape; 8] = [
    AttentionShape { heads: 9, kv_heads: 3, head_dim: 64 },
    AttentionShape { heads: 14, kv_heads: 2, head_dim: 64 },
    AttentionShape { heads: 16, kv_heads: 8, head_dim: 128 },
    AttentionShape { heads: 32, kv_heads: 32, head_dim: 80 },
    AttentionShape { heads: 16, kv_heads: 1, head_dim: 256 },
    AttentionShape { heads: 1, kv_heads: 1, head_dim: 32 },
    AttentionShape { heads: 3, kv_heads: 1, head_dim: 48 },
    AttentionShape { heads: 64, kv_heads: 1, head_dim: 96 },
];

/// Everything, on `device`. Each op is recorded for every number of rows that has a kernel of its own.
pub fn build_and_record(device: &Device, plan: &KernelPlan) {
    let built = Pass::submit(device, None, |pass| {
        for format in [WeightFormat::Bf16, WeightFormat::F16, WeightFormat::F32] {
            products(device, plan, format, pass)?;
            experts(device, plan, format, pass)?;
            product_gradients(device, plan, format, pass)?;
        }
        for format in WeightFormat::quantised() {
            quantised_products(device, plan, format, pass)?;
            experts(device, plan, format, pass)?;
        }
        for cache in CacheFormat::ALL {
            for shape in SHAPES {
                attention(device, &KernelPlan { cache, ..*plan }, shape, pass)?;
                packed_attention(device, &KernelPlan { cache, ..*plan }, shape, pass)?;
            }
        }
        rows(device, pass)?;
        target_states(device, pass)?;
        swiglu(device, pass)?;
        rounds(device, pass)?;
        row_gradients(device, plan, pass)?;
        optimiser(device, pass)?;
        yardstick(device, plan)
    });
    built.unwrap_or_else(|error| panic!("{}: {error}", device.name()));
    device.wait().unwrap_or_else(|error| panic!("{}: {error}", device.name()));
}

/// `bandwidth` and `multiply`.
fn yardstick(device: &Device, plan: &KernelPlan) -> pard::Result<()> {
    PeakProbe::new(device, plan, |index| index).map(drop)
}

/// `remember`, `keep` and `recall`.
fn target_states(device: &Device, pass: &mut Pass) -> pard::Result<()> {
    let (width, step, batch) = (72, step(device)?, PassRow::buffer(device)?);
    let kept = KeptStates::new(device, [1, 64], &vec![0.0; width])?;
    let session = Buffer::storage(device, "session", size_of::<Session>() as u64)?;
    let [x, gain] = [Tensor::new(device, "x", 100, width)?, Tensor::new(device, "gain", 1, width)?];
    let features = Tensor::new(device, "features", 100, 2 * width)?;
    for norm in [None, Some(StateNorm { gain: &gain, epsilon: 1e-5 })] {
        Remember::new(device, &x, norm, 0.02, &features, 1)?.encode(pass, MAX_ROWS);
    }
    for rows in [Rows::One(&step), Rows::Many { step: &step, batch: &batch }] {
        Keep::new(device, rows, &x, &kept)?.encode(pass, MAX_ROWS);
        for repeats in [false, true] {
            Recall::new(device, rows, &session, &kept, repeats, &x)?.encode(pass, MAX_ROWS);
        }
    }
    Ok(())
}

fn step(device: &Device) -> pard::Result<Buffer> {
    Buffer::shared::<Step>(device, "step")
}

/// `embedding`, `gather`, `matmul_rows` and `matmul_tile`.
fn products(device: &Device, plan: &KernelPlan, format: WeightFormat, pass: &mut Pass) -> pard::Result<()> {
    let [outputs, depth] = [65, 72];
    let zeros = |_: std::ops::Range<usize>, out: &mut [f32]| {
        out.fill(0.0);
        Ok(())
    };
    let matrix = Matrix::upload(device, plan, "weights", format, [outputs, depth], &zeros)?;
    let (x, y) = (Tensor::new(device, "x", 100, depth)?, Tensor::new(device, "y", 100, outputs)?);
    let ids = Buffer::storage(device, "ids", 400)?;
    let row = Tensor::new(device, "mask", 1, depth)?;
    for mask in [None, Some(MaskRow { id: 70, row: &row })] {
        Embedding::new(device, &matrix, mask, &ids, &x)?.encode(pass, 100);
    }
    matrix.gather(device, "gathered", &[3, 64])?;
    Gather::new(device, &ids, [&x, &Tensor::new(device, "gathered", 100, depth)?])?.encode(pass, 100);
    let (step, bias) = (step(device)?, Tensor::new(device, "bias", 1, outputs)?);
    let residual = Tensor::new(device, "residual", 100, outputs)?;
    for finish in [Epilogue::Store, Epilogue::Add, Epilogue::Residual(&residual), Epilogue::Bias(&bias)] {
        for row_set in [RowRange::All, RowRange::Outputs] {
            let op = Matmul::new(device, plan, &step, &matrix, [&x, &y], finish, row_set)?;
            // Epilogues and row ranges are pieces that fit every variant, if they fit one.
            match (finish, row_set) {
                (Epilogue::Store, RowRange::All) => every_variant(plan, &op, 1, pass)?,
                _ => SOME_ROWS.into_iter().try_for_each(|rows| op.encode(pass, Phase::Decode, rows))?,
            }
            if row_set == RowRange::All {
                op.encode(pass, Phase::Prefill, 100)?;
            }
        }
    }
    let pair = Matrix::of_pair(device, plan, "weights", format, [outputs, depth], Source::Values(&zeros))?;
    let op = Matmul::new(device, plan, &step, &pair, [&x, &y], Epilogue::Swiglu, RowRange::All)?;
    every_variant(plan, &op, 2, pass)?;
    op.encode(pass, Phase::Prefill, 100)
}

/// Encodes the products that read quantised weights.
fn quantised_products(device: &Device, plan: &KernelPlan, format: WeightFormat, pass: &mut Pass) -> pard::Result<()> {
    let [outputs, depth] = [65, 256];
    let matrix = Matrix::upload(device, plan, "weights", format, [outputs, depth], &|_, _| Ok(()))?;
    let (x, y) = (Tensor::new(device, "x", 100, depth)?, Tensor::new(device, "y", 100, outputs)?);
    let (ids, step) = (Buffer::storage(device, "ids", 400)?, step(device)?);
    Embedding::new(device, &matrix, None, &ids, &x)?.encode(pass, 100);
    matrix.gather(device, "gathered", &[3, 64])?;
    InputGradient::new(device, &step, &matrix, [&y, &x], Accumulate::Store, RowRange::All)?.encode(pass, 100);
    let op = Matmul::new(device, plan, &step, &matrix, [&x, &y], Epilogue::Store, RowRange::All)?;
    SOME_ROWS.into_iter().try_for_each(|rows| op.encode(pass, Phase::Decode, rows))?;
    op.encode(pass, Phase::Prefill, 100)?;
    let pair = Matrix::of_pair(
        device,
        plan,
        "weights",
        format,
        [outputs, depth],
        Source::Values(&|_, out| {
            out.fill(0.0);
            Ok(())
        }),
    )?;
    let op = Matmul::new(device, plan, &step, &pair, [&x, &y], Epilogue::Swiglu, RowRange::All)?;
    [1, 13, 32].into_iter().try_for_each(|rows| op.encode(pass, Phase::Decode, rows))
}

/// Numbers of rows of which each leads to another kind of variant.
const SOME_ROWS: [usize; 6] = [1, 2, 8, 13, 17, MAX_ROWS];

/// The usual variants, and those that a table may ask for.
fn every_variant(plan: &KernelPlan, op: &Matmul, pair: u32, pass: &mut Pass) -> pard::Result<()> {
    for rows in 1..=MAX_ROWS {
        op.encode(pass, Phase::Decode, rows)?;
        if !SOME_ROWS.contains(&rows) {
            continue;
        }
        for variant in Variant::candidates([plan.lanes, plan.slices], rows, pair) {
            op.encode_as(pass, variant, rows)?;
        }
    }
    Ok(())
}

/// `expert_route`, `expert_groups`, `matmul_experts` and `expert_sum`.
fn experts(device: &Device, plan: &KernelPlan, format: WeightFormat, pass: &mut Pass) -> pard::Result<()> {
    let (step, mixture, width) = (step(device)?, Mixture { count: 16, used: 2 }, 256);
    let routing = Routing::new(device, mixture, 100)?;
    let tensor = |rows, width| Tensor::new(device, "rows", rows, width);
    let (scores, x, gated, y) = (tensor(100, 16)?, tensor(100, width)?, tensor(200, width)?, tensor(200, width)?);
    for normalised in [true, false] {
        let op = ExpertRoute::new(device, &step, &scores, &routing, normalised)?;
        [1, 13, 100].into_iter().try_for_each(|rows| op.encode(pass, rows))?;
    }
    for (pair, operands) in [(2, [&x, &gated]), (1, [&gated, &y])] {
        let sizes = ExpertSizes { count: 16, outputs: width, columns: width, pair };
        let zeros = |_: std::ops::Range<usize>, out: &mut [f32]| {
            out.fill(0.0);
            Ok(())
        };
        let weights = ExpertMatrix::upload(device, plan, "experts", format, sizes, Source::Values(&zeros))?;
        let op = ExpertMatmul::new(device, plan, &weights, &routing, operands, pair == 1)?;
        [1, 13, MAX_ROWS, 100].into_iter().try_for_each(|rows| op.encode(pass, rows))?;
    }
    ExpertSum::new(device, &routing, [&y, &x])?.encode(pass, 100);
    Ok(())
}

/// `input_gradient`, `weight_gradient` and `column_sum`.
fn product_gradients(device: &Device, plan: &KernelPlan, format: WeightFormat, pass: &mut Pass) -> pard::Result<()> {
    let [outputs, depth] = [65, 72];
    let matrix = Matrix::upload(device, plan, "weights", format, [outputs, depth], &|_, _| Ok(()))?;
    let (x, dy) = (Tensor::new(device, "x", 100, depth)?, Tensor::new(device, "dy", 100, outputs)?);
    let (step, dx) = (step(device)?, Tensor::new(device, "dx", 100, depth)?);
    for row_set in [RowRange::All, RowRange::Outputs] {
        InputGradient::new(device, &step, &matrix, [&dy, &dx], Accumulate::Add, row_set)?.encode(pass, 100);
    }
    let gradients = matrix.gradients(device)?;
    WeightGradient::new(device, &step, &matrix, [&x, &dy], &gradients)?.encode(pass, 100);
    let sums = Buffer::storage(device, "sums", 4 * outputs as u64)?;
    ColumnSum::new(device, &step, &dy, &sums)?.encode(pass, 100);
    Ok(())
}

/// `swiglu` and `swiglu_gradient`.
fn swiglu(device: &Device, pass: &mut Pass) -> pard::Result<()> {
    let tensor = |width| Tensor::new(device, "rows", 100, width);
    let (x, y, dx) = (tensor(144)?, tensor(72)?, tensor(144)?);
    Swiglu::new(device, [&x, &y])?.encode(pass, 100);
    SwigluGradient::new(device, [&x, &y, &dx])?.encode(pass, 100);
    Ok(())
}

/// `rope`, `attention` and `attention_merge`.
fn attention(device: &Device, plan: &KernelPlan, shape: AttentionShape, pass: &mut Pass) -> pard::Result<()> {
    let positions = 300;
    let width = shape.heads * shape.head_dim;
    let step = step(device)?;
    let angles = Buffer::storage(device, "angles", (320 * shape.head_dim * 4) as u64)?;
    let cache = KvCache::new(device, plan, &shape, positions)?;
    let scratch = AttentionScratch::new(device, plan, &shape, positions)?;
    let tensor = |width| Tensor::new(device, "rows", 100, width);
    let (qkv, query, out) = (tensor(shape.qkv_width())?, tensor(width)?, tensor(width)?);
    let gain = Tensor::new(device, "gain", 1, shape.head_dim)?;
    let batch = PassRow::buffer(device)?;
    let (one, many) = (Rows::One(&step), Rows::Many { step: &step, batch: &batch });
    for (rows, count) in [(one, 100), (many, MAX_ROWS)] {
        for gains in [None, Some(RopeGains { query: &gain, key: &gain, epsilon: 1e-6 })] {
            Rope::new(device, rows, &shape, &angles, [&qkv, &query], &cache, gains)?.encode(pass, count);
        }
    }
    for window in [None, Some(70)] {
        let op = Attention::new(device, plan, many, &shape, window, &cache, &scratch, [&query, &out])?;
        for end in [positions, 1] {
            (1..=MAX_ROWS).try_for_each(|rows| op.encode(pass, Phase::Decode, rows, end))?;
        }
        let op = Attention::new(device, plan, one, &shape, window, &cache, &scratch, [&query, &out])?;
        (1..=MAX_ROWS).try_for_each(|rows| op.encode(pass, Phase::Decode, rows, positions))?;
        op.encode(pass, Phase::Prefill, 100, positions)?;
        // Encodes, for one shape, the variants that other devices would choose.
        if window.is_none() && shape == SHAPES[0] {
            let candidates = op.candidates(13, positions);
            candidates.into_iter().try_for_each(|variant| op.encode_as(pass, variant, 13, positions))?;
        }
    }
    Ok(())
}

/// `packed_attention` and its gradients, `rope_gradient`, `rope_head_scales` and `rope_gain_gradient`.
fn packed_attention(device: &Device, plan: &KernelPlan, shape: AttentionShape, pass: &mut Pass) -> pard::Result<()> {
    let rows = 100;
    let (step, angles) = (step(device)?, Buffer::storage(device, "angles", (rows * shape.head_dim * 4) as u64)?);
    let training_rows = Buffer::with_values(device, "rows", &vec![TrainingRow::default(); rows])?;
    let cache = KvCache::new(device, plan, &shape, rows)?;
    let tensor = |heads: usize| Tensor::new(device, "rows", rows, heads * shape.head_dim);
    let (queries, shared) = (tensor(shape.heads)?, tensor(shape.kv_heads)?);
    let (shared_too, out, out_gradient) = (tensor(shape.kv_heads)?, tensor(shape.heads)?, tensor(shape.heads)?);
    let (query_gradient, log_sums) = (tensor(shape.heads)?, Tensor::new(device, "log sums", rows, shape.heads)?);
    let by = [&query_gradient, &shared, &shared_too];
    let seen = [&queries, &out];
    PackedAttention::new(device, &step, &shape, &training_rows, &cache, seen, &log_sums)?.encode(pass, rows);
    let back = PackedAttentionGradient::new(
        device,
        &step,
        &shape,
        &training_rows,
        &cache,
        seen,
        &log_sums,
        &out_gradient,
        by,
    )?;
    back.encode(pass, rows);
    let (qkv, qkv_gradient) = (tensor(shape.heads + 2 * shape.kv_heads)?, tensor(shape.heads + 2 * shape.kv_heads)?);
    let [query_gain, key_gain, query_sum, key_sum] = [tensor(1)?, tensor(1)?, tensor(1)?, tensor(1)?];
    let (gains, gradients) = ([&query_gain, &key_gain], [&query_sum, &key_sum]);
    for norm in [None, Some(GainGradients { qkv: &qkv, gains, gradients, epsilon: 1e-6 })] {
        RopeGradient::new(device, &step, &shape, &angles, by, &qkv_gradient, norm)?.encode(pass, rows);
    }
    Ok(())
}

/// `rms_norm`, `argmax` and `argmax_merge`, and the choices of a pass.
fn rows(device: &Device, pass: &mut Pass) -> pard::Result<()> {
    let (step, batch) = (step(device)?, PassRow::buffer(device)?);
    let tensor = |width| Tensor::new(device, "rows", MAX_ROWS, width);
    let (x, y, gain) = (tensor(136)?, tensor(136)?, Tensor::new(device, "gain", 1, 136)?);
    let rows = [RowRange::All.into(), RowRange::Outputs.into(), NormRows::Listed(&batch)];
    for rows in rows {
        RmsNorm::quantising(device, &step, [&x, &y], &gain, 1e-6, rows, None)?.encode(pass, MAX_ROWS);
        let (x, y, gain) = (tensor(96)?, tensor(96)?, Tensor::new(device, "gain", 1, 96)?);
        for planes in [1, 2] {
            let op = RmsNorm::quantising(device, &step, [&x, &y], &gain, 1e-6, rows, Some(planes))?;
            op.encode(pass, MAX_ROWS);
        }
    }
    choices(device, pass, [&step, &batch])
}

/// `penalties`, `constrain`, `truncation`, `argmax`, `probabilities`, `rejection`, `log_probabilities` and `token_counts`.
fn choices(device: &Device, pass: &mut Pass, [step, batch]: [&Buffer; 2]) -> pard::Result<()> {
    let tensor = || Tensor::new(device, "rows", MAX_ROWS, 4099);
    let words = |count: u64| Buffer::storage(device, "words", 4 * count);
    let [sessions, proposals, counts, bias] = [words(3)?, words(1024)?, words(4099)?, words(4099)?];
    let [vocabulary, record, thresholds, choices] = [words(4099)?, words(3000)?, words(32)?, words(1024)?];
    let (sampling, turns) = (&TurnSampling::buffer(device)?, Turn::buffer(device)?);
    let (logits, adjusted, target, draft) = (tensor()?, tensor()?, tensor()?, tensor()?);
    let terms = PenaltyTerms {
        batch,
        sampling,
        sessions: &sessions,
        proposals: &proposals,
        counts: &counts,
        bias: &bias,
        ids: 4099,
    };
    for vocabulary in [None, Some(&vocabulary)] {
        Penalties::new(device, terms, 0, [&logits, &adjusted], 4097, vocabulary)?.encode(pass, MAX_ROWS);
        let masks = Constrain::masks(device, 4099)?;
        let op = Constrain::new(device, [batch, sampling], &masks, 4099, 0, &adjusted, 4097, vocabulary)?;
        op.encode(pass, MAX_ROWS);
        for thresholds in [None, Some(&thresholds)] {
            let drawn = |role| Some(Draw { sampling, role, thresholds });
            for draw in [None, drawn(ModelRole::Target), drawn(ModelRole::Draft)] {
                let op = Argmax::new(device, [step, batch], draw, 0, &adjusted, 4097, vocabulary, &choices)?;
                op.encode(pass, MAX_ROWS);
            }
            let inputs = [batch, sampling];
            let op = Probabilities::new(device, inputs, 0, &logits, 4097, vocabulary, thresholds, &target)?;
            op.encode(pass, MAX_ROWS);
        }
        let (inputs, place) = ([batch, sampling], [576, 20]);
        let op = LogProbabilities::new(device, inputs, &logits, 4097, vocabulary, &choices, &record, place)?;
        op.encode(pass, 17);
    }
    // Around the number of tokens from which on a weight has fewer bits.
    for limit in [4097, 1] {
        Truncation::new(device, [batch, sampling], 0, &adjusted, limit, &thresholds)?.encode(pass, MAX_ROWS);
    }
    let terms = RejectionTerms { target: &target, draft: &draft, proposals: &proposals };
    Rejection::new(device, [step, batch, sampling], terms, &choices)?.encode(pass, 17);
    TokenCounts::new(device, [&turns, sampling], &record, &counts, 4099)?.encode(pass, MAX_ROWS, 17);
    Ok(())
}

/// `inputs` and `accept`.
fn rounds(device: &Device, pass: &mut Pass) -> pard::Result<()> {
    let words = || Buffer::storage(device, "words", 4096);
    let [sessions, tokens, proposals, choices, record] = [words()?, words()?, words()?, words()?, words()?];
    let turns = Turn::buffer(device)?;
    let buffers = RoundBuffers { turns: &turns, sessions: &sessions, tokens: &tokens, proposals: &proposals };
    let (step, ids, batch) = (step(device)?, words()?, PassRow::buffer(device)?);
    for role in [ModelRole::Draft, ModelRole::Target] {
        BuildInputs::new(device, role, buffers, [&step, &ids, &batch])?.encode(pass, MAX_ROWS);
    }
    Accept::new(device, buffers, &choices, &record)?.encode(pass, MAX_ROWS, MAX_ROWS);
    Ok(())
}

/// `rms_norm_gradient`, `rms_norm_gain_gradient`, `rms_norm_gain_merge`, `cross_entropy` and `embedding_gradient`.
fn row_gradients(device: &Device, plan: &KernelPlan, pass: &mut Pass) -> pard::Result<()> {
    let (step, width) = (step(device)?, 136);
    let tensor = |width| Tensor::new(device, "rows", 100, width);
    let [x, gain, dy, dx, dgain] = [tensor(width)?, tensor(width)?, tensor(width)?, tensor(width)?, tensor(width)?];
    for row_set in [RowRange::All, RowRange::Outputs] {
        RmsNormGradient::new(device, &step, &x, &gain, 1e-6, [&dy, &dx], &dgain, row_set)?.encode(pass, 100);
    }
    let words = || Buffer::storage(device, "words", 1600);
    let (labels, losses, logits, teacher) = (words()?, words()?, tensor(4099)?, tensor(4099)?);
    for teacher in [None, Some(&teacher)] {
        CrossEntropy::new(device, &step, &logits, teacher, &labels, &losses)?.encode(pass, 100);
    }
    let [ids, firsts, rows] = [words()?, words()?, words()?];
    let readers = Readers { ids: &ids, firsts: &firsts, rows: &rows };
    EmbeddingGradient::of_row(device, readers, &dx, &dgain)?.encode(pass, 1, 100);
    let table = Matrix::upload(device, plan, "weights", WeightFormat::F32, [65, width], &|_, _| Ok(()))?;
    let gradient = Buffer::storage(device, "gradient", table.bytes())?;
    EmbeddingGradient::new(device, readers, &dx, &table, &[gradient])?.encode(pass, 65, 100);
    Ok(())
}

/// `gradient_norm`, `gradient_norm_merge` and `adamw`.
fn optimiser(device: &Device, pass: &mut Pass) -> pard::Result<()> {
    let buffer = || Buffer::storage(device, "values", 4000);
    let [parameter, gradient] = [buffer()?, buffer()?];
    let norm = GradientNorm::new(device, &[(&gradient, 1000), (&parameter, 4)])?;
    norm.encode(pass);
    let step = Buffer::shared::<AdamWStep>(device, "step")?;
    for format in [MomentFormat::F32, MomentFormat::Bf16] {
        AdamW::new(device, &step, norm.norm(), [&parameter, &gradient], 1000, format)?.encode(pass);
    }
    Ok(())
}
