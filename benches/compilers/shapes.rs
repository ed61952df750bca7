//! The operations of published models, recorded one by one: products by every matrix of a layer and by the output
//! projection, attention, what lies between them, and the choice of tokens.

use std::error::Error;

use pard::low_level::gpu::{Buffer, Device, KernelPlan, Pass};
use pard::low_level::ops::{
    Accept, Argmax, Attention, AttentionScratch, AttentionShape, BuildInputs, Draw, Embedding, Epilogue, ExpertMatmul,
    ExpertMatrix, ExpertRoute, ExpertSizes, ExpertSum, KvCache, LogProbabilities, MAX_ROWS, Matmul, Matrix, Mixture,
    ModelRole, NormRows, PassRow, Penalties, PenaltyTerms, Phase, Probabilities, Rejection, RejectionTerms, RmsNorm,
    Rope, RopeGains, RoundBuffers, Routing, RowRange, Rows, Step, Tensor, Truncation, Turn, TurnSampling, Variant,
    WeightFormat,
};
use serde_json::{Value, json};

use super::recorder::Recorder;

/// Properties of a model that determine its kernels.
struct Model {
    name: &'static str,
    layers: usize,
    hidden: usize,
    heads: AttentionShape,
    /// Of each expert, if it is a mixture.
    feed_forward: usize,
    experts: Option<Mixture>,
    vocabulary: usize,
    /// `true` if queries and keys are normalised by head.
    head_norm: bool,
}

const fn heads(heads: usize, kv_heads: usize, head_dim: usize) -> AttentionShape {
    AttentionShape { heads, kv_heads, head_dim }
}

/// Their configurations as published.
const MODELS: [Model; 5] = [
    Model {
        name: "SmolLM2-135M",
        layers: 30,
        hidden: 576,
        heads: heads(9, 3, 64),
        feed_forward: 1536,
        experts: None,
        vocabulary: 49152,
        head_norm: false,
    },
    Model {
        name: "Qwen3-0.6B",
        layers: 28,
        hidden: 1024,
        heads: heads(16, 8, 128),
        feed_forward: 3072,
        experts: None,
        vocabulary: 151936,
        head_norm: true,
    },
    Model {
        name: "Qwen3-8B",
        layers: 36,
        hidden: 4096,
        heads: heads(32, 8, 128),
        feed_forward: 12288,
        experts: None,
        vocabulary: 151936,
        head_norm: true,
    },
    Model {
        name: "Llama-3.1-8B",
        layers: 32,
        hidden: 4096,
        heads: heads(32, 8, 128),
        feed_forward: 14336,
        experts: None,
        vocabulary: 128256,
        head_norm: false,
    },
    Model {
        name: "Qwen3-30B-A3B",
        layers: 48,
        hidden: 2048,
        heads: heads(32, 4, 128),
        feed_forward: 768,
        experts: Some(Mixture { count: 128, used: 8 }),
        vocabulary: 151936,
        head_norm: true,
    },
];
const FORMATS: [WeightFormat; 4] = [WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q4K, WeightFormat::Q6K];
/// Rows of a round: alone, with the drafts of PARD (8, 12), and of as many streams.
const ROWS: [usize; 7] = [1, 2, 4, 8, 13, 16, 32];
const PROMPT_ROWS: usize = 64;
/// Rows of a prompt of which each expert takes some.
const MIXED_PROMPT_ROWS: usize = 512;
const POSITIONS: usize = 4096;

/// A matrix of a model and its place in it.
struct Place {
    name: &'static str,
    outputs: usize,
    columns: usize,
    /// Weight rows of an output: 2 for gate and up.
    pair: usize,
    adds: bool,
    row_set: RowRange,
    /// Number of such matrices in the model.
    count: usize,
    /// Formats of its weights.
    formats: &'static [WeightFormat],
}

impl Model {
    fn places(&self) -> Vec<Place> {
        let attended = self.heads.heads * self.heads.head_dim;
        let place = |name, [outputs, columns]: [usize; 2]| Place {
            name,
            outputs,
            columns,
            pair: 1,
            adds: false,
            row_set: RowRange::All,
            count: self.layers,
            formats: &FORMATS,
        };
        let feed_forward = match self.experts {
            None => vec![
                Place { pair: 2, ..place("gate_up", [self.feed_forward, self.hidden]) },
                Place { adds: true, ..place("down", [self.hidden, self.feed_forward]) },
            ],
            Some(mixture) => {
                vec![Place { formats: &[WeightFormat::F32], ..place("router", [mixture.count, self.hidden]) }]
            }
        };
        let mut places = vec![
            place("qkv", [self.heads.qkv_width(), self.hidden]),
            Place { adds: true, ..place("output", [self.hidden, attended]) },
            Place { row_set: RowRange::Outputs, count: 1, ..place("head", [self.vocabulary, self.hidden]) },
        ];
        places.extend(feed_forward);
        places
    }
}

type Done = Result<(), Box<dyn Error>>;

/// Everything, as it is chosen where nobody asks for anything.
pub fn models(recorder: &mut Recorder, device: &Device, plan: &KernelPlan) -> Done {
    products(recorder, device, plan)?;
    for model in &MODELS {
        attention(recorder, device, plan, model)?;
        between(recorder, device, plan, model)?;
        if let Some(mixture) = model.experts {
            experts(recorder, device, plan, model, mixture)?;
        }
        choices(recorder, device, model)?;
    }
    Ok(())
}

/// The products of all models, with every format that the width allows.
pub fn products(recorder: &mut Recorder, device: &Device, plan: &KernelPlan) -> Done {
    each_product(recorder, device, plan, |recorder, op, place, what| {
        let rounds = ROWS.map(|rows| (Phase::Decode, rows));
        // A prompt needs only the logits of its last row.
        let prompt = (place.row_set == RowRange::All).then_some((Phase::Prefill, PROMPT_ROWS));
        for (role, rows) in rounds.into_iter().chain(prompt) {
            let what = what(role, rows);
            recorder.op(device, what, |pass| op.encode(pass, role, rows))?;
        }
        Ok(())
    })
}

/// The variants that the tuner tries in place of them.
pub fn candidates(recorder: &mut Recorder, device: &Device, plan: &KernelPlan) -> Done {
    each_product(recorder, device, plan, |recorder, op, place, what| {
        for rows in ROWS {
            for variant in Variant::candidates([plan.lanes, plan.slices], rows, place.pair as u32) {
                recorder.op(device, what(Phase::Decode, rows), |pass| op.encode_as(pass, variant, rows))?;
            }
        }
        Ok(())
    })
}

type Describe<'a> = dyn Fn(Phase, usize) -> serde_json::Value + 'a;

fn each_product(
    recorder: &mut Recorder,
    device: &Device,
    plan: &KernelPlan,
    record: impl Fn(&mut Recorder, &Matmul, &Place, &Describe) -> Done,
) -> Done {
    let step = Buffer::shared::<Step>(device, "step")?;
    for (model, place) in MODELS.iter().flat_map(|model| model.places().into_iter().map(move |place| (model, place))) {
        for &format in place.formats {
            let Place { outputs, columns, pair, .. } = place;
            if !columns.is_multiple_of(format.block_len().max(8)) {
                continue;
            }
            let matrix = Matrix::zeros(device, plan, "weights", format, [outputs, columns], pair)?;
            let x = Tensor::new(device, "x", PROMPT_ROWS, columns)?;
            let y = Tensor::new(device, "y", PROMPT_ROWS, outputs)?;
            let finish = match (pair, place.adds) {
                (2, _) => Epilogue::Swiglu,
                (_, true) => Epilogue::Add,
                (_, false) => Epilogue::Store,
            };
            let op = Matmul::new(device, plan, &step, &matrix, [&x, &y], finish, place.row_set)?;
            let weight_rows = matrix.rows();
            let bytes = weight_rows * format.stored_bytes(columns);
            let what = |role, rows| {
                json!({
                    "op": "product", "model": model.name, "matrix": place.name, "count": place.count,
                    "format": format.name(), "weight_rows": weight_rows, "columns": columns, "pair": pair,
                    "weight_bytes": bytes, "role": role_name(role), "rows": rows,
                })
            };
            record(recorder, &op, &place, &what)?;
            device.wait()?;
        }
    }
    Ok(())
}

fn role_name(role: Phase) -> &'static str {
    match role {
        Phase::Decode => "round",
        Phase::Prefill => "prompt",
    }
}

/// Rotary embedding and attention, of one sequence and of a batch, over a part of the keys and over all positions.
fn attention(recorder: &mut Recorder, device: &Device, plan: &KernelPlan, model: &Model) -> Done {
    let shape = model.heads;
    let width = shape.heads * shape.head_dim;
    let (step, batch) = (Buffer::shared::<Step>(device, "step")?, PassRow::buffer(device)?);
    let angles = Buffer::storage(device, "angles", (POSITIONS * shape.head_dim * 4) as u64)?;
    let cache = KvCache::new(device, plan, &shape, POSITIONS)?;
    let scratch = AttentionScratch::new(device, plan, &shape, POSITIONS)?;
    let tensor = |width| Tensor::new(device, "rows", PROMPT_ROWS, width);
    let (qkv, query, out) = (tensor(shape.qkv_width())?, tensor(width)?, tensor(width)?);
    let gain = Tensor::new(device, "gain", 1, shape.head_dim)?;
    let gains = || model.head_norm.then_some(RopeGains { query: &gain, key: &gain, epsilon: 1e-6 });
    let describe = |op, role, rows, end| {
        json!({
            "op": op, "model": model.name, "count": model.layers, "role": role_name(role), "rows": rows, "keys": end,
            "heads": shape.heads, "kv_heads": shape.kv_heads, "head_dim": shape.head_dim,
        })
    };
    let one = Rows::One(&step);
    for (rows, counts) in [(one, &ROWS[..]), (Rows::Many { step: &step, batch: &batch }, &[8, MAX_ROWS][..])] {
        let rope = Rope::new(device, rows, &shape, &angles, [&qkv, &query], &cache, gains())?;
        let op = Attention::new(device, plan, rows, &shape, None, &cache, &scratch, [&query, &out])?;
        for &count in counts {
            let what = describe("rope", Phase::Decode, count, POSITIONS);
            recorder.op(device, what, |pass| {
                rope.encode(pass, count);
                Ok(())
            })?;
            for end in [plan.key_split as usize, POSITIONS] {
                let what = describe("attention", Phase::Decode, count, end);
                recorder.op(device, what, |pass| op.encode(pass, Phase::Decode, count, end))?;
            }
        }
    }
    let op = Attention::new(device, plan, one, &shape, None, &cache, &scratch, [&query, &out])?;
    let what = describe("attention", Phase::Prefill, PROMPT_ROWS, POSITIONS);
    recorder.op(device, what, |pass| op.encode(pass, Phase::Prefill, PROMPT_ROWS, POSITIONS))?;
    Ok(device.wait()?)
}

/// The choice of experts, the products by their weights, and their sum.
fn experts(recorder: &mut Recorder, device: &Device, plan: &KernelPlan, model: &Model, mixture: Mixture) -> Done {
    let (hidden, inner, most) = (model.hidden, model.feed_forward, MIXED_PROMPT_ROWS);
    let step = Buffer::shared::<Step>(device, "step")?;
    let tensor = |rows, width| Tensor::new(device, "rows", rows, width);
    let (x, scores) = (tensor(most, hidden)?, tensor(most, mixture.count)?);
    let (gated, outputs) = (tensor(most * mixture.used, inner)?, tensor(most * mixture.used, hidden)?);
    let routing = Routing::new(device, mixture, most)?;
    let route = ExpertRoute::new(device, &step, &scores, &routing, true)?;
    let sum = ExpertSum::new(device, &routing, [&outputs, &x])?;
    let rounds = ROWS.map(|rows| (Phase::Decode, rows));
    let passes = || rounds.into_iter().chain([(Phase::Prefill, most)]);
    let what = |op: &str, role, rows| {
        json!({
            "op": op, "model": model.name, "count": model.layers, "role": role_name(role), "rows": rows,
            "experts": [mixture.count, mixture.used],
        })
    };
    for (role, rows) in passes() {
        recorder.op(device, what("expert_route", role, rows), |pass| route.encode(pass, rows))?;
        recorder.op(device, what("expert_sum", role, rows), |pass| {
            sum.encode(pass, rows);
            Ok(())
        })?;
    }
    let places = [("gate_up", [inner, hidden], 2, [&x, &gated]), ("down", [hidden, inner], 1, [&gated, &outputs])];
    for (name, [outputs, columns], pair, operands) in places {
        for format in FORMATS {
            let sizes = ExpertSizes { count: mixture.count, outputs, columns, pair };
            let weights = ExpertMatrix::zeros(device, plan, name, format, sizes)?;
            let op = ExpertMatmul::new(device, plan, &weights, &routing, operands, pair == 1)?;
            for (role, rows) in passes() {
                let Value::Object(mut line) = what("product", role, rows) else { continue };
                let read = mixture.distinct(rows) * sizes.rows() as f64;
                line.extend([
                    ("matrix".to_owned(), json!(name)),
                    ("format".to_owned(), json!(format.name())),
                    ("weight_rows".to_owned(), json!(read.round())),
                    ("columns".to_owned(), json!(columns)),
                    ("pair".to_owned(), json!(pair)),
                    ("weight_bytes".to_owned(), json!((read * format.stored_bytes(columns) as f64).round())),
                ]);
                recorder.op(device, line.into(), |pass| op.encode(pass, rows))?;
            }
        }
    }
    Ok(device.wait()?)
}

/// Embedding and normalisation.
fn between(recorder: &mut Recorder, device: &Device, plan: &KernelPlan, model: &Model) -> Done {
    let (hidden, rows) = (model.hidden, MAX_ROWS);
    let step = Buffer::shared::<Step>(device, "step")?;
    let ids = Buffer::storage(device, "ids", 4 * MAX_ROWS as u64)?;
    let tensor = || Tensor::new(device, "rows", MAX_ROWS, hidden);
    let (x, y, gain) = (tensor()?, tensor()?, Tensor::new(device, "gain", 1, hidden)?);
    let describe = |op: &str| json!({ "op": op, "model": model.name, "role": "round", "rows": rows });
    let batch = PassRow::buffer(device)?;
    for rows_of_x in [RowRange::All.into(), NormRows::Listed(&batch)] {
        let op = RmsNorm::quantising(device, &step, [&x, &y], &gain, 1e-6, rows_of_x, None)?;
        recorder.op(device, describe("rms_norm"), |pass| {
            op.encode(pass, rows);
            Ok(())
        })?;
    }
    for planes in [1, 2] {
        let op = RmsNorm::quantising(device, &step, [&x, &y], &gain, 1e-6, RowRange::All, Some(planes))?;
        recorder.op(device, describe("rms_norm with integers"), |pass| {
            op.encode(pass, rows);
            Ok(())
        })?;
    }
    for format in FORMATS.into_iter().filter(|format| hidden.is_multiple_of(format.block_len())) {
        let table = Matrix::zeros(device, plan, "embedding", format, [model.vocabulary, hidden], 1)?;
        let op = Embedding::new(device, &table, None, &ids, &x)?;
        recorder.op(device, describe("embedding"), |pass| {
            op.encode(pass, rows);
            Ok(())
        })?;
        device.wait()?;
    }
    Ok(())
}

/// The choice of tokens: the likeliest, drawn, and as speculation accepts them.
fn choices(recorder: &mut Recorder, device: &Device, model: &Model) -> Done {
    let (vocabulary, rows) = (model.vocabulary, 17);
    let step = Buffer::shared::<Step>(device, "step")?;
    let words = |count: usize| Buffer::storage(device, "words", 4 * count as u64);
    let tensor = || Tensor::new(device, "rows", MAX_ROWS, vocabulary);
    let (logits, adjusted, draft) = (tensor()?, tensor()?, tensor()?);
    let [sessions, tokens, proposals, chosen, record] =
        [words(3)?, words(POSITIONS)?, words(1024)?, words(1024)?, words(2000)?];
    let [counts, bias, thresholds, ids] = [words(vocabulary)?, words(vocabulary)?, words(32)?, words(128)?];
    let (batch, sampling, turns) = (PassRow::buffer(device)?, TurnSampling::buffer(device)?, Turn::buffer(device)?);
    let (batch, sampling) = (&batch, &sampling);
    let mut op = |name: &str, record: &dyn Fn(&mut Pass)| {
        let what = json!({ "op": name, "model": model.name, "role": "round", "rows": rows });
        recorder.op(device, what, |pass| {
            record(pass);
            Ok(())
        })
    };
    let argmax = Argmax::new(device, [&step, batch], None, 0, &logits, vocabulary, None, &chosen)?;
    op("argmax", &|pass| argmax.encode(pass, rows))?;
    let terms = PenaltyTerms {
        batch,
        sampling,
        sessions: &sessions,
        proposals: &proposals,
        counts: &counts,
        bias: &bias,
        ids: vocabulary,
    };
    let penalties = Penalties::new(device, terms, 0, [&logits, &adjusted], vocabulary, None)?;
    op("penalties", &|pass| penalties.encode(pass, rows))?;
    let truncation = Truncation::new(device, [batch, sampling], 0, &adjusted, vocabulary, &thresholds)?;
    op("truncation", &|pass| truncation.encode(pass, rows))?;
    for thresholds in [None, Some(&thresholds)] {
        let draw = Some(Draw { sampling, role: ModelRole::Target, thresholds });
        let argmax = Argmax::new(device, [&step, batch], draw, 0, &adjusted, vocabulary, None, &chosen)?;
        op("draw", &|pass| argmax.encode(pass, rows))?;
        let inputs = [batch, sampling];
        let chances = Probabilities::new(device, inputs, 0, &logits, vocabulary, None, thresholds, &adjusted)?;
        op("probabilities", &|pass| chances.encode(pass, rows))?;
    }
    let terms = RejectionTerms { target: &adjusted, draft: &draft, proposals: &proposals };
    let rejection = Rejection::new(device, [&step, batch, sampling], terms, &chosen)?;
    op("rejection", &|pass| rejection.encode(pass, rows))?;
    let (inputs, place) = ([batch, sampling], [576, 20]);
    let logprobs = LogProbabilities::new(device, inputs, &logits, vocabulary, None, &chosen, &record, place)?;
    op("log_probabilities", &|pass| logprobs.encode(pass, rows))?;
    let buffers = RoundBuffers { turns: &turns, sessions: &sessions, tokens: &tokens, proposals: &proposals };
    for role in [ModelRole::Draft, ModelRole::Target] {
        let inputs = BuildInputs::new(device, role, buffers, [&step, &ids, batch])?;
        op("inputs", &|pass| inputs.encode(pass, rows))?;
    }
    let accept = Accept::new(device, buffers, &chosen, &record)?;
    op("accept", &|pass| accept.encode(pass, 1, rows))?;
    Ok(device.wait()?)
}
