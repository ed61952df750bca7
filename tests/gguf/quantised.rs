//! Quantised files on the device: each tensor in its own format, and the same logits as with all of them widened.

use pard::checkpoint::Checkpoint;
use pard::checkpoint::gguf::Gguf;
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::Buffer;
use pard::low_level::ops::{MAX_ROWS, Phase, WeightFormat};
use pard::model::{WeightDtype, Weights};
use std::sync::Arc;

use super::open_good;
use super::writer::{Writer, byte_tokens, llama, with_tokens};
use crate::comparison::relative_error;
use crate::fit::expect_allocated;
use crate::ops::same_bits;
use crate::oracle::blocks::case;
use crate::support::gpu::device;
use crate::support::random::Random;

const HIDDEN: usize = 256;
const FEED_FORWARD: usize = 512;

/// A Llama of two layers, whose matrices have these formats in turn: query, key, value, output, gate, up, down; the
/// embedding is the head as well.
fn model(formats: [WeightFormat; 7], embedding: WeightFormat) -> Writer {
    let mut random = Random::new(151);
    let tokens = byte_tokens();
    let vocab = tokens.0.len();
    let header = llama("Mixed", [HIDDEN as u32, FEED_FORWARD as u32], [4, 2], 64);
    let mut writer = with_tokens(header, tokens);
    let mut matrix = |writer: Writer, name: &str, format: WeightFormat, [rows, columns]: [usize; 2]| {
        let values = random.normals(rows * columns, 0.08);
        let mut bytes = vec![0; rows * format.stored_bytes(columns)];
        format.store(&values, &mut bytes);
        writer.tensor(name, &[rows as u64, columns as u64], case(format).number, bytes)
    };
    let gain = |writer: Writer, name: &str| {
        let ones = (0..HIDDEN).flat_map(|_| 1.0f32.to_le_bytes()).collect();
        writer.tensor(name, &[HIDDEN as u64], case(WeightFormat::F32).number, ones)
    };
    for layer in 0..2 {
        let shapes = [
            ("attn_q", [HIDDEN, HIDDEN]),
            ("attn_k", [HIDDEN / 2, HIDDEN]),
            ("attn_v", [HIDDEN / 2, HIDDEN]),
            ("attn_output", [HIDDEN, HIDDEN]),
            ("ffn_gate", [FEED_FORWARD, HIDDEN]),
            ("ffn_up", [FEED_FORWARD, HIDDEN]),
            ("ffn_down", [HIDDEN, FEED_FORWARD]),
        ];
        for ((name, shape), format) in shapes.into_iter().zip(formats) {
            writer = matrix(writer, &format!("blk.{layer}.{name}.weight"), format, shape);
        }
        writer = gain(writer, &format!("blk.{layer}.attn_norm.weight"));
        writer = gain(writer, &format!("blk.{layer}.ffn_norm.weight"));
    }
    writer = matrix(writer, "token_embd.weight", embedding, [vocab, HIDDEN]);
    gain(writer, "output_norm.weight")
}

fn upload(gguf: &Gguf, choice: WeightDtype) -> Arc<Weights> {
    let config = gguf.config().expect("hyper-parameters");
    let expected = Weights::expected_bytes(&config, gguf, choice).expect("a whole model");
    let model = Weights::upload(device(), &device().default_plan(), &config, gguf, choice, &|_, _| ());
    let model = model.expect("upload");
    let more = model.bytes() as f64 / expected as f64;
    assert!((1.0..1.05).contains(&more), "{} bytes, {expected} were expected", model.bytes());
    Arc::new(model)
}

/// The logits after a prompt, and after five rows more.
fn logits(model: &Arc<Weights>) -> Vec<f32> {
    let choices = Buffer::storage(device(), "choices", 4 * MAX_ROWS as u64).expect("a small buffer");
    let sequence = ModelRunner::new(model, 64, model.config().vocab_size, &choices).expect("a sequence");
    let tokens: Vec<u32> = (0..12).map(|index| index * 19 % 256).collect();
    sequence.run(Phase::Prefill, &tokens[..7], 0, 1).expect("a prompt");
    let mut all = sequence.logits(1).expect("logits");
    sequence.run(Phase::Decode, &tokens[7..], 7, 5).expect("rows");
    all.extend(sequence.logits(5).expect("logits"));
    all
}

#[test]
fn every_format_gives_the_logits_of_its_widened_values() {
    use WeightFormat::{Bf16, F16, Iq4Nl, Iq4Xs, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let mixes = [
        // Formats of some layers in llama.cpp's Q4_K_M, and those it falls back to.
        [Q4K, Q4K, Q6K, Q4K, Q4K, Q4K, Q6K],
        [Q5_0, Q5K, Q8_0, Q5_1, Q4_1, Q4_1, Q4_0],
        [Q8_0, F16, Bf16, Q6K, Q5_0, Q5_0, Q8_0],
        // Its Q2_K and its IQ4_XS.
        [Q2K, Q2K, Q3K, Q3K, Q2K, Q2K, Q3K],
        [Iq4Xs, Iq4Xs, Q5K, Iq4Nl, Iq4Xs, Iq4Xs, Iq4Nl],
    ];
    for formats in mixes {
        let (_file, gguf) = open_good(&model(formats, formats[0]).bytes());
        let (native, widened) = (upload(&gguf, WeightDtype::Compact), upload(&gguf, WeightDtype::F32));
        assert!(native.notices().is_empty(), "{:?}", native.notices());
        let file_bytes: u64 =
            gguf.tensors().iter().filter(|tensor| tensor.shape.len() == 2).map(|tensor| tensor.bytes).sum();
        let more = native.bytes() as f64 / file_bytes as f64;
        assert!((1.0..1.05).contains(&more), "{formats:?}: {} bytes of {file_bytes} in the file", native.bytes());
        let error = relative_error(&logits(&native), &logits(&widened));
        assert!(error <= 1e-5, "{formats:?}: {error:e}");
    }
}

/// Covers mixed and single formats, as stored, widened, and quantised where they are floats.
#[test]
fn what_is_needed_is_what_is_allocated() {
    use WeightFormat::{F16, F32, Q4_1, Q4K, Q6K, Q8_0};
    let quantised = WeightDtype::Quantised { layers: Q4K, ends: Q8_0 };
    for formats in [[Q4K, Q4K, Q6K, Q4K, Q4K, Q4K, Q6K], [Q4_1, Q8_0, Q8_0, F16, Q4K, Q6K, F32], [F32; 7]] {
        let (_file, gguf) = open_good(&model(formats, formats[0]).bytes());
        let config = gguf.config().expect("hyper-parameters");
        for choice in [WeightDtype::Compact, WeightDtype::Bf16, WeightDtype::F32, quantised] {
            expect_allocated(&format!("{formats:?}"), &config, &gguf, choice);
        }
    }
}

/// A lane reads gate and up alike, so they get a format that both fit.
#[test]
fn a_gate_and_an_up_of_two_formats_become_bf16() {
    use WeightFormat::{Q4K, Q6K, Q8_0};
    let (_file, gguf) = open_good(&model([Q4K, Q4K, Q4K, Q4K, Q4K, Q6K, Q4K], Q8_0).bytes());
    let native = upload(&gguf, WeightDtype::Compact);
    assert_eq!(native.notices(), ["Q4_K weights are kept as BF16", "Q6_K weights are kept as BF16"]);
    let error = relative_error(&logits(&native), &logits(&upload(&gguf, WeightDtype::F32)));
    assert!(error > 1e-5 && error < 2e-2, "{error:e}");
}

/// Floats are quantised as they are uploaded, to the blocks of a file that was quantised before; what is quantised already
/// stays as it is.
#[test]
fn a_float_model_is_quantised_on_request() {
    use WeightFormat::{F32, Q4_1, Q4K, Q8_0};
    let (_file, floats) = open_good(&model([F32, F32, F32, Q4_1, F32, F32, F32], F32).bytes());
    let (_file, blocks) = open_good(&model([Q4K, Q4K, Q4K, Q4_1, Q4K, Q4K, Q4K], Q8_0).bytes());
    let here = upload(&floats, WeightDtype::Quantised { layers: Q4K, ends: Q8_0 });
    let there = upload(&blocks, WeightDtype::Compact);
    assert_eq!(here.bytes(), there.bytes());
    same_bits("quantised here and before", &logits(&here), &logits(&there));
}
