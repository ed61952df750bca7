//! Greedy tokens of real models in every format of weights against candle's, which multiplies in f32 by the very values
//! that the blocks stand for. `PARD_SWEEP=1` takes all formats and longer answers.

use std::path::Path;
use std::sync::Arc;

use pard::checkpoint::ModelFiles;
use pard::decoding::{Method, Sequence, SequenceOptions};
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{Buffer, CacheFormat, KernelPlan, QuantisedProducts};
use pard::low_level::ops::{MAX_ROWS, Phase, WeightFormat};
use pard::model::{LoadOptions, Model, WeightDtype, Weights};
use pard::text::{Message, Rendering};

use crate::comparison::relative_error;
use crate::oracle::argmax::argmax;
use crate::oracle::blocks::widen;
use crate::real_model::{PROMPTS, path};
use crate::support::candle_reference::CandleModel;
use crate::support::gpu::{device, sweep};
use crate::support::memory::Memory;
use crate::support::tiny_model::{Recipe, Stored, Tensors, write_json, write_safetensors};

/// Maximum gap between candle's best logit and that of the token: the effect of summing in another order.
const NEAR_TIE: f32 = 1e-3;

/// The tensors of a model, as f32.
fn tensors(files: &ModelFiles) -> Tensors {
    let mut tensors = Tensors::new();
    for info in files.checkpoint.tensors() {
        let rows = info.shape.iter().product::<usize>() / info.shape.last().expect("a shape");
        let mut values = vec![0.0; info.shape.iter().product()];
        files.checkpoint.read_rows(&info.name, 0..rows, &mut values).expect("rows");
        tensors.insert(info.name.clone(), Stored { shape: info.shape.clone(), values });
    }
    tensors
}

/// Candle's model of `tensors`.
fn on_candle(files: &ModelFiles, tensors: &Tensors) -> CandleModel {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_safetensors(folder.path(), tensors, 1, WeightFormat::F32);
    let recipe = Recipe { seed: 0, config: files.config.clone(), duplicate_head: false, shards: 1 };
    write_json(&folder.path().join("config.json"), &recipe.config_json());
    CandleModel::load(folder.path())
}

/// Candle's model of the very values that the blocks of `files` stand for.
pub fn stored_on_candle(files: &ModelFiles) -> CandleModel {
    on_candle(files, &tensors(files))
}

/// Format that `--quantize` gives a tensor: K-quants need rows of whole 256s.
fn format_of(name: &str, columns: usize, layers: WeightFormat) -> WeightFormat {
    match layers {
        _ if ["model.embed_tokens.weight", "lm_head.weight"].contains(&name) => WeightFormat::Q8_0,
        WeightFormat::Q4K if !columns.is_multiple_of(256) => WeightFormat::Q4_1,
        WeightFormat::Q5K if !columns.is_multiple_of(256) => WeightFormat::Q5_1,
        WeightFormat::Q6K if !columns.is_multiple_of(256) => WeightFormat::Q8_0,
        WeightFormat::Q2K | WeightFormat::Q3K if !columns.is_multiple_of(256) => WeightFormat::Q4_0,
        WeightFormat::Iq4Xs if !columns.is_multiple_of(256) => WeightFormat::Iq4Nl,
        format => format,
    }
}

/// Rounds the matrices to what their blocks stand for.
fn round(tensors: &mut Tensors, layers: WeightFormat) {
    for (name, tensor) in tensors.iter_mut().filter(|(_, tensor)| tensor.shape.len() == 2) {
        let format = format_of(name, tensor.shape[1], layers);
        let mut blocks = vec![0; tensor.shape[0] * format.stored_bytes(tensor.shape[1])];
        format.store(&tensor.values, &mut blocks);
        tensor.values = widen(format, &blocks);
    }
}

/// Candle's model of what the matrices of `files` become in blocks of `layers`.
fn rounded_on_candle(files: &ModelFiles, layers: WeightFormat) -> CandleModel {
    let mut tensors = tensors(files);
    round(&mut tensors, layers);
    on_candle(files, &tensors)
}

/// Checks the greedy answers to some prompts.
fn check(name: &str, model: &Arc<Weights>, candle: &mut CandleModel, prompts: &[Vec<u32>]) {
    let count = if sweep() { 64 } else { 16 };
    for prompt in prompts {
        let options = SequenceOptions::default().method(Method::Ar).context(512);
        let mut decoder = Sequence::new(model, None, options).expect("a decoder");
        decoder.start(prompt).expect("a prompt");
        while decoder.tokens().len() < prompt.len() + count {
            decoder.round().expect("a round");
        }
        let tokens = &decoder.tokens()[..prompt.len() + count];
        let positions: Vec<usize> = (prompt.len() - 1..tokens.len() - 1).collect();
        let mut same = 0;
        for (logits, &token) in candle.logits(tokens, &positions).iter().zip(&tokens[prompt.len()..]) {
            let theirs = argmax(logits, logits.len())[0];
            let gap = logits[theirs as usize] - logits[token as usize];
            assert!(gap <= NEAR_TIE, "{name}: candle has {theirs} {gap} above {token}");
            same += usize::from(theirs == token);
        }
        println!("{name}: {same} of {count} greedy tokens are candle's");
    }
}

/// Prompts in the model's chat template.
fn prompts(files: &ModelFiles) -> Vec<Vec<u32>> {
    let some = if sweep() { &PROMPTS[..3] } else { &PROMPTS[..1] };
    let chat = |prompt: &&str| files.text.chat_tokens(&[Message::new("user", *prompt)], Rendering::default());
    some.iter().map(|prompt| chat(prompt).expect("the template renders")).collect()
}

#[test]
fn greedy_tokens_of_quantised_weights_are_candles() {
    let files = ModelFiles::open(&path()).expect("the default model opens");
    let formats =
        if sweep() { WeightFormat::quantised().collect() } else { vec![WeightFormat::Q4K, WeightFormat::Q5_0] };
    for layers in formats {
        let choice = WeightDtype::Quantised { layers, ends: WeightFormat::Q8_0 };
        let memory = Memory::new(tensors(&files));
        let plan = KernelPlan { cache: CacheFormat::F32, ..device().default_plan() };
        let model = Weights::upload(device(), &plan, &files.config, &memory, choice, &|_, _| ()).expect("upload");
        drop(memory);
        check(layers.name(), &Arc::new(model), &mut rounded_on_candle(&files, layers), &prompts(&files));
    }
}

/// Rows of integers by quantised weights: logits against candle's, which multiplies the very values in f32. Rounding x in
/// each of 120 products leaves 16 bits about 1e-4 of the norm off, a few times that at the worst position; 8 bits 3e-2.
#[test]
fn logits_of_integer_products_agree_with_candle() {
    const DECODED: usize = 24;
    let files = ModelFiles::open(&path()).expect("the default model opens");
    let prompt = &prompts(&files)[0];
    let vocab = files.config.vocab_size;
    let memory = Memory::new(tensors(&files));
    for layers in [WeightFormat::Q8_0, WeightFormat::Q4K] {
        let mut candle = rounded_on_candle(&files, layers);
        let (mut text, mut expected) = (Vec::new(), Vec::new());
        let kinds = [(QuantisedProducts::Float, 3e-5, 1e-4), (TWO_BYTES, 2e-4, 1e-3), (ONE_BYTE, 6e-2, 3e-1)];
        for (quantised, overall, bound) in kinds {
            let plan = KernelPlan { cache: CacheFormat::F32, quantised, ..device().default_plan() };
            let choice = WeightDtype::Quantised { layers, ends: WeightFormat::Q8_0 };
            let model = Weights::upload(device(), &plan, &files.config, &memory, choice, &|_, _| ());
            let model = Arc::new(model.expect("upload"));
            let choices = Buffer::storage(device(), "choices", 4 * MAX_ROWS as u64).expect("a small buffer");
            let sequence = ModelRunner::new(&model, 256, vocab, &choices).expect("a sequence");
            let mut seen = Vec::new();
            let last = prompt.len() - 1;
            sequence.prefill(&prompt[..last], 0).expect("prefill");
            if text.is_empty() {
                text.extend(prompt);
                for at in last..last + DECODED {
                    sequence.run(Phase::Decode, &text[at..], at, 1).expect("a row");
                    text.push(argmax(&sequence.logits(1).expect("logits"), vocab)[0]);
                }
                expected = candle.logits(&text, &(last..text.len()).collect::<Vec<_>>());
            }
            // One row at a time, then a verification of 13.
            for at in last..text.len() - 13 {
                sequence.run(Phase::Decode, &text[at..at + 1], at, 1).expect("a row");
                seen.extend(sequence.logits(1).expect("logits"));
            }
            let at = text.len() - 13;
            sequence.run(Phase::Decode, &text[at..], at, 13).expect("rows");
            seen.extend(sequence.logits(13).expect("logits"));
            let whole = relative_error(&seen, &expected.concat());
            let errors = seen.chunks(vocab).zip(&expected).map(|(actual, expected)| relative_error(actual, expected));
            let mut errors: Vec<f64> = errors.collect();
            errors.sort_by(f64::total_cmp);
            let (median, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
            println!("{}, {quantised}: relative error {whole:.1e}; {median:.1e}, {worst:.1e} at most", layers.name());
            assert!(whole <= overall, "{}, {quantised}: {whole:e} is above {overall:e}", layers.name());
            assert!(worst <= bound, "{}, {quantised}: {worst:e} is above {bound:e}", layers.name());
            assert_eq!(seen.len(), expected.len() * vocab);
        }
    }
}

const TWO_BYTES: QuantisedProducts = QuantisedProducts::Integer { planes: 2 };
const ONE_BYTE: QuantisedProducts = QuantisedProducts::Integer { planes: 1 };

#[test]
#[ignore = "by hand: holds the greedy tokens of the file PARD_TEST_GGUF against candle's"]
fn greedy_tokens_of_a_file_are_candles() {
    let file = std::env::var("PARD_TEST_GGUF").expect("PARD_TEST_GGUF names a file");
    let open = || ModelFiles::open(Path::new(&file)).expect("the file opens");
    let options = LoadOptions::default().cache(CacheFormat::F32);
    let model = Model::upload(device(), open(), options, &|_, _| ()).expect("upload");
    check(&file, &model.weights, &mut stored_on_candle(&open()), &prompts(&open()));
}
