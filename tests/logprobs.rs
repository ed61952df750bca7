//! Log-probabilities of an answer's tokens: those of the model's own logits, by every method, and none unless asked for.

use pard::Error;
use pard::decoding::{AcceptanceRule, DraftLength, Method, SamplingParams, TokenLogprobs};
use pard::error::OptionName;
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{Buffer, CacheFormat};
use pard::low_level::inspect::Inspect;
use pard::low_level::ops::{MAX_ROWS, Phase};

use crate::comparison::check;
use crate::decoding::{CONTEXT, decode};
use crate::oracle::Expected;
use crate::oracle::log_probabilities::{likeliest, log_probabilities};
use crate::sampling::{decoder, draft, drawn, options};
use crate::sampling_options::everything;
use crate::support::gpu::{device, plan, upload};
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

fn reporting(top: usize, sampling: SamplingParams) -> SamplingParams {
    sampling.top_logprobs(Some(top))
}

/// Whatever else changes the logits that tokens are drawn from, what is reported is the model's.
#[test]
fn they_are_those_of_the_models_logits() {
    let recipe = Recipe::llama(101);
    let vocab = recipe.config.vocab_size;
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let stranger = upload(&Recipe { seed: 102, ..recipe }, &plan(CacheFormat::F16));
    let prompt = Random::new(4).indices(12, vocab);
    for (method, drafts, top, acceptance, sampling) in [
        (Method::Ar, 0, 5, AcceptanceRule::Noise, drawn(0.0, 0)),
        (Method::Vsd, 3, 0, AcceptanceRule::Noise, drawn(1.2, 1)),
        (Method::Pard, 6, 20, AcceptanceRule::Noise, everything()),
        (Method::Vsd, 4, 2, AcceptanceRule::Rejection, drawn(1.5, 2)),
    ] {
        let run_ahead = Some(false);
        let options = options(method, drafts, &reporting(top, sampling)).run_ahead(run_ahead).acceptance(acceptance);
        // A draft that is the target is accepted now and then, a stranger hardly ever.
        for model in [&target, &stranger] {
            let mut decoder = decoder(&target, &draft(model), options.clone());
            decoder.start(&prompt).expect("start");
            for round in 0..8 {
                let committed = decoder.round().expect("a round").to_vec();
                let (logits, reported) = (decoder.logits().expect("logits"), decoder.last_logprobs());
                assert_eq!(reported.iter().map(|one| one.token).collect::<Vec<_>>(), committed, "round {round}");
                for (row, TokenLogprobs { token, logprob, top: likely }) in logits.chunks(vocab).zip(reported) {
                    let (all, best) = (log_probabilities(row), likeliest(row, top));
                    let ids: Vec<usize> = likely.iter().map(|&(id, _)| id as usize).collect();
                    assert_eq!(ids, best, "{}, round {round}", method.name());
                    let mut expected = Expected::default();
                    for index in [*token as usize].into_iter().chain(best) {
                        expected.push(all.values[index], all.bound[index]);
                    }
                    let got: Vec<f32> = [*logprob].into_iter().chain(likely.iter().map(|&(_, one)| one)).collect();
                    check("log-probabilities", &format!("round {round}"), &got, &expected.values, &expected.bound);
                }
            }
        }
    }
}

/// A round that runs ahead has its own record; K that changes from round to round has rows of its own.
#[test]
fn every_method_reports_the_same() {
    let recipe = Recipe::qwen2(103);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let sampling = reporting(3, drawn(0.9, 4));
    let report = |method, drafts, run_ahead| {
        let run_ahead = Some(run_ahead);
        let options = options(method, 0, &sampling).run_ahead(run_ahead).drafts(drafts);
        let mut decoder = decoder(&target, &draft(&target), options);
        decoder.start(&[1, 2, 3]).expect("start");
        let mut all = Vec::new();
        while all.len() < 40 {
            decoder.round().expect("a round");
            all.extend_from_slice(decoder.last_logprobs());
        }
        all.truncate(40);
        all
    };
    let alone = report(Method::Ar, DraftLength::Fixed(0), false);
    assert_eq!(alone.len(), 40);
    assert!(alone.iter().all(|one| one.top.len() == 3 && one.logprob <= one.top[0].1 && one.top[2].1 <= one.top[1].1));
    for (method, drafts) in [(Method::Ar, 0), (Method::Vsd, 2), (Method::Pard, 5), (Method::Ngram, 3)] {
        for run_ahead in [false, true] {
            let other = report(method, DraftLength::Fixed(drafts), run_ahead);
            assert_eq!(other, alone, "{}, ahead: {run_ahead}", method.name());
        }
    }
}

#[test]
fn there_are_none_unless_they_are_asked_for_and_the_text_is_the_same() {
    let recipe = Recipe::llama(104);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let mut decoder = decoder(&target, &draft(&target), options(Method::Pard, 4, &drawn(0.0, 0)));
    let silent = decode(&mut decoder, &[1, 2, 3], 30);
    assert_eq!(decoder.last_logprobs(), []);
    // More are asked for, then fewer, then none: records of another size each time.
    for top in [20, 1, 0] {
        decoder.set_sampling(reporting(top, drawn(0.0, 0))).expect("options in range");
        assert_eq!(decode(&mut decoder, &[1, 2, 3], 30), silent, "top {top}");
        assert!(decoder.last_logprobs().iter().all(|one| one.top.len() == top), "top {top}");
        assert!(!decoder.last_logprobs().is_empty(), "top {top}");
    }
    decoder.set_sampling(drawn(0.0, 0)).expect("options in range");
    assert_eq!(decode(&mut decoder, &[1, 2, 3], 30), silent);
    assert_eq!(decoder.last_logprobs(), []);
}

/// Tokens of a prompt are scored by the model's own logits, and as rounds score the same tokens.
#[test]
fn a_prompts_tokens_are_scored_as_an_answers_are() {
    for recipe in [Recipe::llama(105), Recipe::qwen2(106)] {
        let vocab = recipe.config.vocab_size;
        let target = upload(&recipe, &plan(CacheFormat::F16));
        let mut decoder = decoder(&target, &draft(&target), options(Method::Vsd, 3, &reporting(5, drawn(1.0, 3))));
        let mut tokens = Random::new(8).indices(40, vocab);
        decoder.start(&tokens).expect("start");
        let mut reported = Vec::new();
        while reported.len() < 50 {
            tokens.extend(decoder.round().expect("a round"));
            reported.extend_from_slice(decoder.last_logprobs());
        }
        let scored = decoder.score(&tokens, 5).expect("scores");
        assert!(scored.iter().map(|one| one.token).eq(tokens[1..].iter().copied()));
        for (scored, reported) in scored[39..].iter().zip(&reported) {
            assert_eq!(scored.token, reported.token);
            for ((_, one), (_, other)) in scored.top.iter().zip(&reported.top) {
                assert!((one - other).abs() < 1e-3, "{scored:?}, {reported:?}");
            }
            assert!((scored.logprob - reported.logprob).abs() < 1e-3, "{scored:?}, {reported:?}");
        }

        let choices = Buffer::storage(device(), "choices", 4 * MAX_ROWS as u64).expect("a buffer");
        let runner = ModelRunner::new(&target, CONTEXT, vocab, &choices).expect("a runner");
        let rows = &tokens[..tokens.len() - 1];
        let mut logits = Vec::new();
        for (chunk, start) in rows.chunks(MAX_ROWS).zip((0..).step_by(MAX_ROWS)) {
            runner.run(Phase::Prefill, chunk, start, chunk.len()).expect("a pass");
            logits.extend(runner.logits(chunk.len()).expect("logits"));
        }
        for (row, TokenLogprobs { token, logprob, top }) in logits.chunks(vocab).zip(&scored) {
            let (all, best) = (log_probabilities(row), likeliest(row, 5));
            assert_eq!(top.iter().map(|&(id, _)| id as usize).collect::<Vec<_>>(), best);
            let mut expected = Expected::default();
            for index in [*token as usize].into_iter().chain(best) {
                expected.push(all.values[index], all.bound[index]);
            }
            let got: Vec<f32> = [*logprob].into_iter().chain(top.iter().map(|&(_, one)| one)).collect();
            check("scores of a prompt", &format!("token {token}"), &got, &expected.values, &expected.bound);
        }
    }
}

/// Scoring is reading: pieces do not change a bit, nor does it change what is written afterwards.
#[test]
fn scores_do_not_depend_on_pieces_and_leave_the_answer_as_it_is() {
    let recipe = Recipe::qwen3(107);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let prompt = Random::new(5).indices(70, recipe.config.vocab_size);
    for (method, drafts) in [(Method::Ar, 0), (Method::Pard, 4), (Method::Vsd, 2)] {
        let mut decoder = decoder(&target, &draft(&target), options(method, drafts, &drawn(0.8, 2)));
        let expected = decode(&mut decoder, &prompt, 30);
        let accepted = decoder.statistics().accepted.clone();
        let whole = decoder.score(&prompt, 3).expect("scores");
        let mut written = Vec::new();
        while written.len() < 30 {
            written.extend_from_slice(decoder.round().expect("a round"));
        }
        assert_eq!(written[..30], expected, "{}", method.name());
        assert_eq!(decoder.statistics().accepted, accepted, "{}: its draft has read the prompt", method.name());
        let mut pieces = decoder.score(&prompt[..2], 3).expect("scores");
        for end in [3, 20, 57, 58, 70] {
            pieces.extend(decoder.resume_scored(&prompt[..end], 3).expect("scores"));
        }
        assert_eq!(pieces, whole);
        // The caches hold all of it.
        assert_eq!(decoder.resume_scored(&prompt, 3).expect("scores"), []);
        assert!(
            decoder
                .score(&prompt, 0)
                .expect("scores")
                .iter()
                .zip(&whole)
                .all(|(few, many)| few.top.is_empty() && few.logprob == many.logprob)
        );
        assert_eq!(decoder.score(&prompt[..1], 3).expect("scores"), []);
    }
    let mut decoder = decoder(&target, &draft(&target), options(Method::Ar, 0, &drawn(0.0, 0)));
    assert!(matches!(decoder.score(&[], 1), Err(Error::EmptyPrompt)));
    assert!(matches!(decoder.score(&[1, 2], 21), Err(Error::Option { option: OptionName::TopLogprobs, .. })));
    let unknown = recipe.config.vocab_size as u32;
    assert!(matches!(decoder.score(&[1, unknown, 2], 1), Err(Error::TokenRange { .. })));
}
