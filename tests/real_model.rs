//! The default model, SmolLM2-135M-Instruct, as users get it: its logits against candle's, its greedy tokens against
//! llama.cpp's, and the three methods against each other. `./run model` fetches it.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use pard::checkpoint::ModelFiles;
use pard::checkpoint::options::SourceOptions;
use pard::checkpoint::resolve;
use pard::decoding::{
    Draft, DraftLength, FinishReason, Generation, Limits, MAX_DRAFTS, Method, Sequence, SequenceOptions,
};
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{Buffer, CacheFormat, MatmulChoice, QuantisedChoice};
use pard::low_level::ops::{MAX_ROWS, Phase};
use pard::model::{LoadOptions, Model};
use pard::text::{Conversation, Message, Rendering};
use serde_json::Value;

use crate::comparison::relative_error;
use crate::oracle::argmax::argmax;
use crate::real_formats::stored_on_candle;
use crate::support::gpu::{device, products, sweep};

pub const PROMPTS: [&str; 10] = [
    "Write a Python function that reverses a string.",
    "What is the capital of France, and what is it known for?",
    "A train travels 60 miles in 1.5 hours. What is its speed?",
    "Explain photosynthesis to a child.",
    "List five fruits in alphabetical order.",
    "Write a haiku about the sea.",
    "Translate 'good morning' into Spanish, French and German.",
    "What does the SQL statement SELECT DISTINCT do?",
    "Tom has 3 boxes of 12 eggs and breaks 5. How many are left?",
    "Give me a short recipe for pancakes.",
];

pub fn path() -> PathBuf {
    resolve::resolve("smollm2", &SourceOptions::from_env()).expect("the default model; `./run model` fetches it")
}

fn load(options: LoadOptions) -> Model {
    let files = ModelFiles::open(&path()).expect("the default model opens");
    Model::upload(device(), files, options.products(products()), &|_, _| ()).expect("upload")
}

/// Shared by the tests that do not care for the cache's format.
pub fn model() -> &'static Model {
    static MODEL: LazyLock<Model> = LazyLock::new(|| load(LoadOptions::default()));
    &MODEL
}

fn sequence(model: &Model, positions: usize) -> ModelRunner {
    let choices = Buffer::storage(device(), "choices", 4 * MAX_ROWS as u64).expect("a small buffer");
    let vocab = model.weights.config().vocab_size;
    ModelRunner::new(&model.weights, positions, vocab, &choices).expect("a sequence")
}

fn chat(model: &Model, prompt: &str) -> Vec<u32> {
    model.text.chat_tokens(&[Message::new("user", prompt)], Rendering::default()).expect("the template renders")
}

#[test]
fn logits_agree_with_candle() {
    let mut candle = stored_on_candle(&ModelFiles::open(&path()).expect("the default model opens"));
    const DECODED: usize = 200;
    for (cache, bound) in [(CacheFormat::F32, 1e-4), (CacheFormat::F16, 5e-3), (CacheFormat::Q8_0, 1e-1)] {
        let model = load(LoadOptions::default().cache(cache));
        let sequence = sequence(&model, 512);
        let vocab = model.weights.config().vocab_size;
        let mut tokens = chat(&model, PROMPTS[0]);
        let prompt = tokens.len();
        let mut seen: Vec<(usize, Vec<f32>)> = Vec::new();

        // The prompt, with logits of its last rows as prompt rows give them.
        sequence.run(Phase::Prefill, &tokens, 0, 8).expect("prompt");
        let logits = sequence.logits(8).expect("logits");
        seen.extend(logits.chunks(vocab).enumerate().map(|(row, logits)| (prompt - 8 + row, logits.to_vec())));
        let mut next = argmax(&logits[7 * vocab..], vocab)[0];
        for _ in 0..DECODED {
            tokens.push(next);
            sequence.run(Phase::Decode, &tokens[tokens.len() - 1..], tokens.len() - 1, 1).expect("a row");
            next = argmax(&sequence.logits(1).expect("logits"), vocab)[0];
        }
        seen.push((tokens.len() - 1, sequence.logits(1).expect("logits")));
        // A verify of 13 rows, most of them wrong guesses.
        let first = tokens.len();
        tokens.extend(std::iter::once(next).chain(200..212));
        sequence.run(Phase::Decode, &tokens[first..], first, 13).expect("rows");
        let logits = sequence.logits(13).expect("logits");
        seen.extend(logits.chunks(vocab).enumerate().map(|(row, logits)| (first + row, logits.to_vec())));

        let positions: Vec<usize> = seen.iter().map(|(position, _)| *position).collect();
        let expected = candle.logits(&tokens, &positions);
        for ((position, actual), expected) in seen.iter().zip(&expected) {
            let error = relative_error(actual, expected);
            println!("{cache:?} cache, position {position}: relative error {error:.1e}");
            assert!(error <= bound, "{cache:?} cache, position {position}: {error:e} is above {bound:e}");
        }
    }
}

#[test]
fn greedy_tokens_agree_with_llama_cpp() {
    let lines = include_str!("data/llamacpp_greedy.jsonl");
    let integers = LoadOptions::default().quantised(QuantisedChoice::Integer16);
    // Cooperative matrices multiply quantised weights as all others.
    let integers = (products() == MatmulChoice::Plain).then(|| load(integers));
    [model()].into_iter().chain(&integers).for_each(|model| greedy_tokens_agree(model, lines));
}

/// Holds the tokens that `model` likes best after llama.cpp's text in `lines` against llama.cpp's.
fn greedy_tokens_agree(model: &Model, lines: &str) {
    let vocab = model.weights.config().vocab_size;
    let (mut positions, mut agreed) = (0, 0);
    for line in lines.lines() {
        let json: Value = serde_json::from_str(line).expect("a line of JSON");
        let ids = |key: &str| -> Vec<u32> {
            json[key].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
        };
        let (prompt, output) = (ids("prompt_ids"), ids("output_ids"));
        let tokens = [prompt.clone(), output.clone()].concat();
        let sequence = sequence(model, tokens.len());
        let first = prompt.len() - 1;
        sequence.prefill(&tokens[..first], 0).expect("prefill");
        // Teacher-forced: every row is fed the reference's own prefix.
        for (chunk, reference) in output.chunks(MAX_ROWS).enumerate() {
            let start = first + chunk * MAX_ROWS;
            sequence.run(Phase::Decode, &tokens[start..start + reference.len()], start, reference.len()).expect("rows");
            let logits = sequence.logits(reference.len()).expect("logits");
            for (row, &theirs) in logits.chunks(vocab).zip(reference) {
                let ours = argmax(row, vocab)[0];
                let gap = row[ours as usize] - row[theirs as usize];
                positions += 1;
                agreed += usize::from(ours == theirs);
                assert!(gap <= 0.3, "token {ours} is {gap} above the reference's {theirs}: more than a near tie");
            }
        }
    }
    println!("{}: {agreed} of {positions} greedy tokens as llama.cpp's", model.weights.plan());
    assert_eq!(positions, 255);
    assert!(agreed >= 245, "only {agreed} of {positions} greedy tokens are llama.cpp's");
}

#[test]
fn every_method_writes_the_same_text() {
    let model = model();
    let draft = Draft::new(model, model, Some(0)).expect("a model drafts for itself");
    let (prompts, count) = if sweep() { (&PROMPTS[..], 64) } else { (&PROMPTS[..2], 24) };
    let drafts: Vec<usize> = if sweep() { (1..=MAX_DRAFTS).collect() } else { vec![4, 12] };
    let prompts: Vec<Vec<u32>> = prompts.iter().map(|prompt| chat(model, prompt)).collect();
    let decode = |method, drafts| -> Vec<Vec<u32>> {
        let fixed = DraftLength::Fixed(drafts);
        let options = SequenceOptions::default().method(method).drafts(fixed).context(512);
        let mut decoder = Sequence::new(&model.weights, Some(&draft), options).expect("a decoder");
        let answer = |prompt: &Vec<u32>| {
            decoder.start(prompt).expect("start");
            while decoder.tokens().len() < prompt.len() + count {
                decoder.round().expect("round");
            }
            if method == Method::Vsd {
                assert_eq!(decoder.statistics().tokens_per_round(), (drafts + 1) as f64, "K = {drafts}");
            }
            if method == Method::Pard {
                // The last known row is no mask: its proposal is the target's own choice.
                assert_eq!(decoder.statistics().accepted_per_position()[0], 1.0, "K = {drafts}");
            }
            decoder.tokens()[prompt.len()..prompt.len() + count].to_vec()
        };
        prompts.iter().map(answer).collect()
    };
    let alone = decode(Method::Ar, 0);
    for drafts in drafts {
        for method in [Method::Vsd, Method::Pard] {
            assert_eq!(decode(method, drafts), alone, "{} with K = {drafts}", method.name());
            println!("{} with K = {drafts}: identical", method.name());
        }
    }
}

#[test]
fn an_answer_ends_where_it_should() {
    let model = model();
    let options = SequenceOptions::default().method(Method::Ar).context(256);
    let mut decoder = Sequence::new(&Arc::clone(&model.weights), None, options).expect("a decoder");
    let mut answer = |prompt: &str, max_tokens, stop: &[&str]| {
        let limits = Limits::default().max_tokens(max_tokens).stop(stop.iter().map(|&stop| stop.to_owned()).collect());
        let prompt = chat(model, prompt);
        let mut generation = Generation::start(&mut decoder, &model.text, &prompt, limits).expect("an answer begins");
        let text: String = generation.by_ref().map(|piece| piece.expect("a piece")).collect();
        (text, generation.output().to_vec(), generation.finish_reason().expect("it ended"))
    };
    let (text, tokens, reason) = answer("What is 2 + 2?", 60, &[]);
    assert_eq!(reason, FinishReason::Stop, "{text:?}");
    assert!(text.contains('4') && !text.contains("<|im_end|>"), "{text:?}");
    assert!(model.text.stop_tokens.contains(tokens.last().expect("a token")));
    let (_, tokens, reason) = answer("Tell me a story.", 7, &[]);
    assert_eq!((tokens.len(), reason), (7, FinishReason::Length));
    let (text, _, reason) = answer("Count from one to nine in digits.", 60, &["5"]);
    assert!(reason == FinishReason::Stop && !text.contains('5'), "{text:?}");
}

/// Three turns as `pard chat` has them, each of which goes on from the caches.
#[test]
fn a_conversation_is_the_same_by_every_method_and_reads_only_what_is_new() {
    let model = model();
    let draft = Draft::new(model, model, None).expect("a draft");
    let converse = |method: Method, drafts: usize| {
        let options = SequenceOptions::default().method(method).drafts(DraftLength::Fixed(drafts)).context(512);
        let mut decoder = Sequence::new(&model.weights, Some(&draft), options).expect("a decoder");
        let mut conversation = Conversation::new(Vec::new(), Rendering::default());
        let mut spoken = 0;
        for question in ["What is the capital of France?", "And of Italy?", "Which of them is larger?"] {
            let prompt = conversation.ask(&model.text, question).expect("the template renders");
            let limits = Limits::default().max_tokens(16).stop(Vec::new());
            let mut answer =
                Generation::resume(&mut decoder, &model.text, &prompt, limits).expect("the prompt is read");
            let text: String = answer.by_ref().map(|piece| piece.expect("a round")).collect();
            let output = answer.output().to_vec();
            let statistics = decoder.statistics();
            assert_eq!((statistics.prompt_tokens, statistics.reused_tokens), (prompt.len(), spoken), "{question}");
            conversation.answer(&model.text, &text, &output);
            // The newest token has no row yet.
            spoken = prompt.len() + output.len() - 1;
        }
        conversation.messages().to_vec()
    };
    let plain = converse(Method::Ar, 0);
    assert!(plain[1].content.contains("Paris") && plain[3].content.contains("Rome"), "{plain:?}");
    assert_eq!(converse(Method::Vsd, 4), plain);
}
