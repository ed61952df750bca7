//! Log-probabilities of an answer's tokens: those of the model's own logits, by every method, and none unless asked for.

use pard::decoding::{AcceptanceRule, DraftLength, Method, SamplingParams, TokenLogprobs};
use pard::low_level::gpu::CacheFormat;
use pard::low_level::inspect::Inspect;

use crate::comparison::check;
use crate::decoding::decode;
use crate::oracle::Expected;
use crate::oracle::log_probabilities::{likeliest, log_probabilities};
use crate::sampling::{decoder, draft, drawn, options};
use crate::sampling_options::everything;
use crate::support::gpu::{plan, upload};
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
