//! Drawn tokens: AR, VSD and PARD draw the same ones for one seed, whatever K is, and draw them as softmax says.

use std::sync::Arc;

use pard::Error;
use pard::decoding::{
    Costs, Draft, DraftLength, Method, RespondOptions, SamplingParams, Sequence, SequenceOptions, respond,
};
use pard::error::OptionName;
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{Buffer, CacheFormat};
use pard::low_level::ops::Phase;
use pard::model::{PassCost, Weights};

use crate::decoding::{CONTEXT, decode};
use crate::oracle::truncation;
use crate::support::chi_square::ChiSquare;
use crate::support::gpu::{device, plan, sweep, upload, upload_tensors};
use crate::support::random::Random;
use crate::support::shared_draft::SharedDraft;
use crate::support::tiny_model::Recipe;

pub const MASK: u32 = 5;

pub fn draft(model: &Arc<Weights>) -> Draft {
    Draft::from_weights("draft", model.clone(), Some(MASK))
}

pub fn drawn(temperature: f32, seed: u64) -> SamplingParams {
    SamplingParams::default().temperature(temperature).seed(seed)
}

pub fn options(method: Method, drafts: usize, sampling: &SamplingParams) -> SequenceOptions {
    let (drafts, sampling) = (DraftLength::Fixed(drafts), sampling.clone());
    SequenceOptions::default().method(method).drafts(drafts).sampling(sampling).context(CONTEXT)
}

pub fn decoder(target: &Arc<Weights>, draft: &Draft, options: SequenceOptions) -> Sequence {
    Sequence::new(target, Some(draft), options).expect("a decoder")
}

pub fn lengths() -> Vec<usize> {
    if sweep() { (1..=16).collect() } else { vec![1, 4, 13] }
}

/// Fails unless AR, VSD and PARD write the same tokens by `sampling`, for several K, running ahead or not, with a draft
/// that is the target itself and one that is a stranger. Returns the tokens.
#[track_caller]
pub fn is_lossless(recipe: &Recipe, sampling: &SamplingParams, lengths: &[usize]) -> Vec<u32> {
    let target = upload(recipe, &plan(CacheFormat::F16));
    let stranger = upload(&Recipe { seed: recipe.seed + 1, ..recipe.clone() }, &plan(CacheFormat::F16));
    let prompt = Random::new(9).indices(21, recipe.config.vocab_size);
    let alone = decode(&mut decoder(&target, &draft(&target), options(Method::Ar, 0, sampling)), &prompt, 40);
    let mut ahead = false;
    for &drafts in lengths {
        for method in [Method::Vsd, Method::Pard] {
            for model in [&target, &stranger] {
                ahead = !ahead;
                let options = options(method, drafts, sampling).run_ahead(Some(ahead));
                let tokens = decode(&mut decoder(&target, &draft(model), options), &prompt, 40);
                let (family, method) = (recipe.config.family, method.name());
                assert_eq!(tokens, alone, "{family:?}, {method}, K = {drafts}, ahead: {ahead}, {sampling:?}");
            }
            ahead = !ahead;
        }
    }
    alone
}

#[test]
fn every_method_draws_the_same_tokens() {
    for (recipe, temperature) in Recipe::each_family(7).into_iter().zip([0.5, 1.0, 1.8]) {
        let greedy = is_lossless(&recipe, &drawn(0.0, 5), &[4]);
        let [one, other] = [1, 2].map(|seed| is_lossless(&recipe, &drawn(temperature, seed), &lengths()));
        assert!(one != other && one != greedy, "noise changes the text");
    }
}

#[test]
fn choosing_k_draws_the_same_tokens() {
    let recipe = Recipe::qwen3(17);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let stranger = upload(&Recipe { seed: 18, ..recipe.clone() }, &plan(CacheFormat::F16));
    let sampling = drawn(0.9, 3);
    let alone = decode(&mut decoder(&target, &draft(&target), options(Method::Ar, 0, &sampling)), &[1, 2, 3], 60);
    for method in [Method::Vsd, Method::Pard] {
        for (model, run_ahead) in [(&target, false), (&stranger, true), (&target, true)] {
            let options = options(method, 0, &sampling).drafts(DraftLength::Auto).run_ahead(Some(run_ahead));
            let mut decoder = decoder(&target, &draft(model), options);
            let sloped = PassCost::from_points(&[(1, 1.0), (32, 4.0)]);
            decoder.set_costs(Costs { target: sloped, draft: PassCost::from_points(&[(1, 0.1), (32, 0.2)]) });
            assert_eq!(decode(&mut decoder, &[1, 2, 3], 60), alone, "{}, ahead: {run_ahead}", method.name());
        }
    }
}

/// The draft has the target's noise at the target's positions; otherwise hardly any proposal would agree.
#[test]
fn a_perfect_draft_draws_what_its_target_draws() {
    let recipe = Recipe::qwen2(11);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    for drafts in lengths() {
        let mut decoder = decoder(&target, &draft(&target), options(Method::Vsd, drafts, &drawn(1.3, 8)));
        decode(&mut decoder, &[1, 2, 3], 30);
        assert_eq!(decoder.statistics().accepted_per_position(), vec![1.0; drafts], "K = {drafts}");
    }
    // A parallel draft sees what the target sees as far as its first proposal.
    let mut decoder = decoder(&target, &draft(&target), options(Method::Pard, 6, &drawn(1.3, 8)));
    decode(&mut decoder, &[1, 2, 3], 40);
    assert_eq!(decoder.statistics().accepted_per_position()[0], 1.0);
}

/// Noise belongs to a token, not to a row of the head: with the target's layers and a third of its vocabulary, a draft
/// proposes the target's own choice wherever it can.
#[test]
fn a_draft_of_fewer_tokens_has_their_noise() {
    let recipe = Recipe::llama(33);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let vocabulary = SharedDraft::third(recipe.config.vocab_size);
    let files = SharedDraft::new(&recipe, MASK, Some(vocabulary.clone()));
    let model = files.upload(&target, &plan(CacheFormat::F16)).expect("a draft");
    let mut decoder = decoder(&target, &draft(&model), options(Method::Vsd, 1, &drawn(1.0, 4)));
    decoder.start(&[1, 2, 3]).expect("start");
    let (mut hits, mut misses) = (0, 0);
    while decoder.tokens().len() < 100 {
        let committed = decoder.round().expect("round").to_vec();
        let known = vocabulary.contains(&committed[0]);
        assert_eq!(committed.len() == 2, known, "{committed:?}: the draft knows it: {known}");
        (hits, misses) = (hits + usize::from(known), misses + usize::from(!known));
    }
    assert!(hits > 5 && misses > 5, "{hits} of both kinds, {misses}");
}

#[test]
fn one_text_alone_is_the_first_of_many() {
    let recipe = Recipe::llama(2);
    let model = upload(&recipe, &plan(CacheFormat::F16));
    let prompts = [vec![4, 5, 6], vec![7], vec![8, 9]];
    let sampling = drawn(0.8, 6);
    let many = RespondOptions::default().context(CONTEXT).max_tokens(24).sampling(sampling);
    let written = respond(&model, &[], prompts.iter().cloned().enumerate(), many).expect("a batch");
    let first = written.map(|response| response.expect("a response")).find(|response| response.index == 0);
    let mut alone = decoder(&model, &draft(&model), options(Method::Ar, 0, &drawn(0.8, 6)));
    assert_eq!(decode(&mut alone, &prompts[0], 24), first.expect("the first prompt's").tokens);
}

/// A model whose logits depend on the last token only: nothing of attention or feed-forward reaches the residual.
pub fn chain(seed: u64, vocab: usize) -> (Recipe, Arc<Weights>) {
    let mut recipe = Recipe::llama(seed);
    (recipe.config.vocab_size, recipe.config.layers) = (vocab, 1);
    let mut tensors = recipe.tensors();
    for (name, stored) in &mut tensors {
        if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") {
            stored.values.fill(0.0);
        }
    }
    let model = upload_tensors(&recipe.config, tensors, &plan(CacheFormat::F16));
    (recipe, model)
}

/// The logits after each token of such a model.
pub fn transitions(model: &Arc<Weights>) -> Vec<Vec<f64>> {
    let vocab = model.config().vocab_size;
    let choices = Buffer::storage(device(), "choices", 128).expect("a small buffer");
    let sequence = ModelRunner::new(model, 64, vocab, &choices).expect("a sequence");
    let row = |token: usize| {
        sequence.run(Phase::Decode, &[token as u32], 0, 1).expect("a row");
        sequence.logits(1).expect("logits").into_iter().map(f64::from).collect()
    };
    (0..vocab).map(row).collect()
}

/// The chances of each token of a row that is drawn from.
pub fn chances(logits: &[f64], terms: truncation::Terms) -> Vec<f64> {
    let row: Vec<f32> = logits.iter().map(|&logit| logit as f32).collect();
    let (least, most) = truncation::truncation(&row, terms);
    assert_eq!(least, most, "no token's weight is at the edge");
    let largest = logits.iter().copied().fold(f64::MIN, f64::max);
    let weight = |logit: &f64| match *logit >= least {
        true => ((logit - largest) / f64::from(terms.temperature)).exp(),
        false => 0.0,
    };
    let weights: Vec<f64> = logits.iter().map(weight).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// The vocabulary of the models whose distributions are tested.
pub const FEW: usize = 16;

/// Fails unless `decoder` draws thousands of tokens from `logits`, which are those after each token, as softmax says of
/// those that `terms` leave.
#[track_caller]
pub fn draws_as_softmax_says(decoder: &mut Sequence, logits: &[Vec<f64>], terms: truncation::Terms) {
    let truncation::Terms { top_k, top_p, min_p, temperature } = terms;
    let mut counts = vec![vec![0; FEW]; FEW];
    for seed in 0..25 {
        let sampling = drawn(temperature, seed).top_k(top_k).top_p(top_p).min_p(min_p);
        decoder.set_sampling(sampling).expect("options in range");
        let text = [vec![11], decode(decoder, &[11], 100)].concat();
        text.windows(2).for_each(|pair| counts[pair[0] as usize][pair[1] as usize] += 1);
    }
    let context = format!("{} by {terms:?}", decoder.options().method.name());
    let mut test = ChiSquare::default();
    for (logits, counts) in logits.iter().zip(&counts) {
        let weights = chances(logits, terms);
        let left_out = weights.iter().zip(counts).find(|(weight, count)| **weight == 0.0 && **count > 0);
        assert_eq!(left_out, None, "{context}: a token that was to be left out");
        test.add(&weights, counts);
    }
    test.check(&context, 60);
}

/// Rounds of proposals must not bend the distribution that the target alone has.
#[test]
fn tokens_are_drawn_as_softmax_says_by_every_method() {
    let (recipe, target) = chain(61, FEW);
    let stranger = upload(&Recipe { seed: 62, ..recipe }, &plan(CacheFormat::F16));
    let logits = transitions(&target);
    for (method, temperature, top_k, top_p, min_p) in
        [(Method::Vsd, 0.7, 0, 1.0, 0.0), (Method::Ar, 1.3, 13, 0.95, 0.0), (Method::Pard, 1.2, 11, 0.9, 0.02)]
    {
        let mut decoder = decoder(&target, &draft(&stranger), options(method, 3, &drawn(0.0, 0)));
        draws_as_softmax_says(&mut decoder, &logits, truncation::Terms { top_k, top_p, min_p, temperature });
        assert!(method == Method::Ar || decoder.statistics().tokens_per_round() > 1.0, "some proposals are accepted");
    }
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let target = upload(&Recipe::llama(51), &plan(CacheFormat::F16));
    let mut decoder = decoder(&target, &draft(&target), options(Method::Ar, 0, &drawn(0.0, 0)));
    for temperature in [-0.1, 1001.0, f32::NAN, f32::INFINITY] {
        let refused = Sequence::new(&target, None, options(Method::Ar, 0, &drawn(temperature, 0))).map(drop);
        assert!(matches!(refused, Err(Error::Option { option: OptionName::Temperature, .. })), "{temperature}");
        let refused = decoder.set_sampling(drawn(temperature, 0));
        assert!(matches!(refused, Err(Error::Option { option: OptionName::Temperature, .. })), "{temperature}");
    }
    let plain = SamplingParams::default();
    for (option, sampling) in [
        (OptionName::TopP, plain.clone().top_p(0.0)),
        (OptionName::TopP, plain.clone().top_p(1.5)),
        (OptionName::TopP, plain.clone().top_p(f32::NAN)),
        (OptionName::MinP, plain.clone().min_p(-0.5)),
        (OptionName::MinP, plain.clone().min_p(f32::NAN)),
        (OptionName::RepetitionPenalty, plain.clone().repetition_penalty(0.0)),
        (OptionName::PresencePenalty, plain.clone().presence_penalty(f32::INFINITY)),
        (OptionName::FrequencyPenalty, plain.clone().frequency_penalty(-101.0)),
        (OptionName::LogitBias, plain.clone().logit_bias(vec![(307, 1.0)])),
        (OptionName::LogitBias, plain.clone().logit_bias(vec![(3, f32::NAN)])),
        (OptionName::Banned, plain.clone().banned(vec![5, 307])),
        (OptionName::Banned, plain.clone().banned((0..307).collect())),
        (OptionName::TopLogprobs, plain.clone().top_logprobs(Some(21))),
    ] {
        let refused = decoder.set_sampling(sampling.clone());
        let named = matches!(&refused, Err(Error::Option { option: name, .. }) if *name == option);
        assert!(named, "{option}: {refused:?} for {sampling:?}");
        let refused = Sequence::new(&target, None, options(Method::Ar, 0, &sampling)).map(drop);
        let named = matches!(&refused, Err(Error::Option { option: name, .. }) if *name == option);
        assert!(named, "{option}: {refused:?} for {sampling:?}");
    }
    assert_eq!(decoder.options().sampling, plain, "what was refused changed nothing");
}
