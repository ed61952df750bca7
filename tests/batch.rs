//! Many sequences at once: each writes what it would write alone, bit for bit, and tokens are drawn as softmax says.

use std::sync::Arc;

use pard::Error;
use pard::decoding::{
    DraftLength, Engine, EngineOptions, FinishReason, RespondOptions, Response, SamplingParams, Sequence,
    SequenceOptions, respond,
};
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{Buffer, CacheFormat};
use pard::low_level::inspect::Inspect;
use pard::low_level::ops::Phase;
use pard::model::Weights;

use crate::ops::same_bits;
use crate::support::chi_square::ChiSquare;
use crate::support::gpu::{device, plan, upload};
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

const CONTEXT: usize = 320;
const LONGEST: usize = 24;

fn options(parallel: usize) -> RespondOptions {
    RespondOptions::default().parallel(parallel).context(CONTEXT).max_tokens(LONGEST)
}

fn prompts(count: usize, vocab: usize) -> Vec<Vec<u32>> {
    let mut random = Random::new(5);
    // Some reach into a second part of attention's keys.
    let lengths = [1, 5, 37, 2, 64, 70, 250, 19];
    (0..count).map(|index| random.indices(lengths[index % lengths.len()], vocab)).collect()
}

#[test]
fn a_row_among_others_has_the_bits_of_the_row_alone() {
    for recipe in Recipe::each_family(4).into_iter().chain([Recipe::partly_windowed(4)]) {
        let vocab = recipe.config.vocab_size;
        for cache in CacheFormat::ALL {
            let model = upload(&recipe, &plan(cache));
            let prompts = prompts(8, vocab);
            let engine =
                Engine::from_weights(&model, None, EngineOptions::default().context(CONTEXT).sequences(prompts.len()))
                    .expect("an engine");
            let plain =
                SequenceOptions::default().drafts(DraftLength::Fixed(0)).context(CONTEXT).run_ahead(Some(false));
            let mut sequences: Vec<Sequence> = prompts
                .iter()
                .map(|prompt| {
                    let mut sequence = engine.add(plain.clone()).expect("a sequence");
                    sequence.start(prompt).expect("a prompt");
                    sequence
                })
                .collect();
            let choices = Buffer::storage(device(), "choices", 128).expect("a small buffer");
            let alone = ModelRunner::new(&model, CONTEXT, vocab, &choices).expect("a runner");
            for round in 0..8 {
                let texts: Vec<Vec<u32>> = sequences.iter().map(|sequence| sequence.tokens().to_vec()).collect();
                let passes = engine.step(&mut sequences.iter_mut().collect::<Vec<_>>()).expect("a pass");
                assert_eq!(passes, [prompts.len()], "a row of each");
                for (slot, text) in texts.iter().enumerate().filter(|(slot, _)| (slot + round) % 3 == 0) {
                    let (last, known) = text.split_last().expect("a token");
                    alone.prefill(&prompts[slot][..prompts[slot].len() - 1], 0).expect("prefill");
                    // Tokens written since the prompt were rows of passes there, and are rows here.
                    for at in prompts[slot].len() - 1..known.len() {
                        alone.run(Phase::Decode, &text[at..at + 1], at, 1).expect("a row");
                    }
                    alone.run(Phase::Decode, &[*last], known.len(), 1).expect("a row");
                    let context = format!("{:?}, {cache:?}, slot {slot}, round {round}", recipe.config.family);
                    let (got, expected) = (sequences[slot].logits(), alone.logits(1).expect("logits"));
                    same_bits(&context, &got.expect("logits"), &expected);
                }
            }
        }
    }
}

/// Until a stop token, the length or the context, in the order of the indices.
fn responses(model: &Arc<Weights>, stop: &[u32], prompts: &[Vec<u32>], options: RespondOptions) -> Vec<Response> {
    let written = respond(model, stop, prompts.iter().cloned().enumerate(), options).expect("a batch");
    let mut written: Vec<Response> = written.collect::<Result<_, _>>().expect("responses");
    written.sort_by_key(|response| response.index);
    written
}

#[test]
fn greedy_responses_are_those_of_every_prompt_alone() {
    for recipe in Recipe::each_family(3) {
        let model = upload(&recipe, &plan(CacheFormat::F16));
        let prompts = prompts(40, recipe.config.vocab_size);
        let alone_options = SequenceOptions::default().drafts(DraftLength::Fixed(0)).context(CONTEXT);
        let mut decoder = Sequence::new(&model, None, alone_options).expect("a decoder");
        let mut alone = |prompt: &[u32]| {
            decoder.start(prompt).expect("start");
            for _ in 0..LONGEST {
                decoder.round().expect("round");
            }
            decoder.tokens()[prompt.len()..].to_vec()
        };
        let texts: Vec<Vec<u32>> = prompts.iter().map(|prompt| alone(prompt)).collect();
        // Tokens that some of the texts hold, early and late.
        let stop = [texts[0][6], texts[1][2], texts[2][15]];
        let expected: Vec<Response> =
            texts.into_iter().enumerate().map(|(index, tokens)| cut(index, tokens, &stop)).collect();
        assert!(expected.iter().any(|response| response.finish == FinishReason::Length));
        assert!(expected.iter().any(|response| response.finish == FinishReason::Stop));
        for (parallel, run_ahead) in [(1, true), (3, false), (3, true), (32, false), (32, true)] {
            let options = options(parallel).run_ahead(Some(run_ahead));
            let written = responses(&model, &stop, &prompts, options);
            assert_eq!(written, expected, "{:?}, {parallel} at once, ahead: {run_ahead}", recipe.config.family);
        }
    }
}

fn cut(index: usize, mut tokens: Vec<u32>, stop: &[u32]) -> Response {
    let end = tokens.iter().position(|token| stop.contains(token));
    tokens.truncate(end.map_or(tokens.len(), |at| at + 1));
    Response { index, tokens, finish: if end.is_some() { FinishReason::Stop } else { FinishReason::Length } }
}

#[test]
fn drawn_responses_depend_on_the_seed_and_on_nobody_else() {
    let recipe = Recipe::qwen3(9);
    let model = upload(&recipe, &plan(CacheFormat::F16));
    let prompts = prompts(20, recipe.config.vocab_size);
    let drawn = |parallel, seed, run_ahead| {
        let sampling = SamplingParams::default().temperature(0.9).seed(seed);
        let options = options(parallel).sampling(sampling).run_ahead(Some(run_ahead));
        responses(&model, &[7, 8, 9, 10], &prompts, options)
    };
    let one_by_one = drawn(1, 1, false);
    for (parallel, run_ahead) in [(3, true), (20, false), (32, true)] {
        assert_eq!(drawn(parallel, 1, run_ahead), one_by_one, "{parallel} at once");
    }
    let other = drawn(20, 2, false);
    let same = other.iter().zip(&one_by_one).filter(|(a, b)| a.tokens == b.tokens).count();
    assert!(same <= 2, "{same} of 20 texts are the same under another seed");
    // The same prompt twice is drawn twice.
    let twice = [prompts[2].clone(), prompts[2].clone()];
    let sampling = SamplingParams::default().temperature(0.9);
    let options = options(2).sampling(sampling);
    let pair = responses(&model, &[], &twice, options);
    assert_ne!(pair[0].tokens, pair[1].tokens);
}

#[test]
fn tokens_are_drawn_as_softmax_says() {
    let recipe = Recipe::llama(6);
    let vocab = recipe.config.vocab_size;
    let model = upload(&recipe, &plan(CacheFormat::F16));
    let choices = Buffer::storage(device(), "choices", 128).expect("a small buffer");
    let sequence = ModelRunner::new(&model, 64, vocab, &choices).expect("a sequence");
    sequence.run(Phase::Decode, &[11], 0, 1).expect("a row");
    let logits = sequence.logits(1).expect("logits");
    let draws = 6400;
    for temperature in [0.5f32, 1.0, 1.7] {
        let sampling = SamplingParams::default().temperature(temperature).seed(3);
        let options = options(32).max_tokens(1).sampling(sampling);
        let mut counts = vec![0usize; vocab];
        for response in responses(&model, &[], &vec![vec![11]; draws], options) {
            counts[response.tokens[0] as usize] += 1;
        }
        let scaled: Vec<f64> = logits.iter().map(|&logit| f64::from(logit) / f64::from(temperature)).collect();
        let largest = scaled.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scaled.iter().map(|logit| (logit - largest).exp()).collect();
        let mut test = ChiSquare::default();
        test.add(&weights, &counts);
        test.check(&format!("temperature {temperature}"), 21);
    }
}

#[test]
fn a_response_ends_with_the_context() {
    let model = upload(&Recipe::qwen2(2), &plan(CacheFormat::F16));
    let options = options(2).context(20);
    let written = responses(&model, &[], &[vec![1; 15], vec![2; 19], vec![3; 4]], options);
    let ends: Vec<_> = written.iter().map(|response| (response.tokens.len(), response.finish)).collect();
    assert_eq!(ends, [(5, FinishReason::Context), (1, FinishReason::Context), (16, FinishReason::Context)]);
}

#[test]
fn what_cannot_be_responded_to_is_refused_with_a_reason() {
    let model = upload(&Recipe::llama(51), &plan(CacheFormat::F16));
    for parallel in [0, 33] {
        let refused = respond(&model, &[], std::iter::empty(), options(parallel)).map(drop);
        assert!(matches!(refused, Err(Error::Option { option: pard::error::OptionName::Sequences, .. })));
    }
    let none = options(1).max_tokens(0);
    assert!(matches!(respond(&model, &[], std::iter::empty(), none).map(drop), Err(Error::Option { .. })));
    assert_eq!(respond(&model, &[], std::iter::empty(), options(2)).expect("a batch").count(), 0);

    let first = |prompt: Vec<u32>, options: RespondOptions| {
        let mut written = respond(&model, &[], [(0, prompt)].into_iter(), options).expect("a batch");
        let first = written.next().expect("an error");
        assert!(written.next().is_none(), "it ends with the error");
        first.expect_err("an error")
    };
    assert!(matches!(first(vec![], options(2)), Error::EmptyPrompt));
    assert!(matches!(first(vec![1; CONTEXT], options(2)), Error::ContextFull { .. }));
    assert!(matches!(first(vec![9999], options(2)), Error::TokenRange { id: 9999, .. }));
    assert!(matches!(first(vec![9999, 1], options(2)), Error::TokenRange { id: 9999, .. }));
    for temperature in [-1.0, f32::NAN, f32::INFINITY] {
        let sampling = SamplingParams::default().temperature(temperature);
        let refused = respond(&model, &[], std::iter::empty(), options(2).sampling(sampling)).map(drop);
        assert!(matches!(refused, Err(Error::Option { option: pard::error::OptionName::Temperature, .. })));
    }
}
