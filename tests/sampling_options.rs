//! Truncation, penalties, biases and bans: the same tokens by every method, and those of the formulas.

use std::sync::Arc;

use pard::decoding::{Method, SamplingParams};
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{AdapterQuery, Buffer, CacheFormat, Device};
use pard::low_level::inspect::Inspect;
use pard::low_level::ops::Phase;
use pard::model::{WeightDtype, Weights};

use crate::decoding::{CONTEXT, decode};
use crate::oracle::gumbel::gumbel;
use crate::oracle::{Expected, penalties, truncation};
use crate::sampling::{MASK, decoder, draft, drawn, is_lossless, lengths, options};
use crate::support::gpu::{device, plan, upload};
use crate::support::memory::Memory;
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

/// Every option at once.
pub fn everything() -> SamplingParams {
    SamplingParams::default()
        .temperature(0.9)
        .seed(21)
        .top_k(60)
        .top_p(0.92)
        .min_p(0.01)
        .repetition_penalty(1.2)
        .presence_penalty(0.3)
        .frequency_penalty(0.2)
        .logit_bias(vec![(3, 1.5), (17, -2.0), (3, 0.5)])
        .banned(vec![40, 41])
}

#[test]
fn every_method_writes_the_same_tokens_with_all_options() {
    let [llama, qwen2, qwen3] = Recipe::each_family(27);
    let all = is_lossless(&llama, &everything(), &lengths());
    assert_ne!(all, is_lossless(&llama, &drawn(0.9, 21), &[4]), "the options change the text");
    is_lossless(&qwen2, &everything().temperature(0.0), &[2, 7]);
    let truncated = drawn(1.5, 2).top_k(5).top_p(0.8).min_p(0.1);
    is_lossless(&qwen3, &truncated, &[1, 9]);
    is_lossless(&qwen3, &drawn(0.0, 0).frequency_penalty(-0.4), &[16]);
}

/// The whole chain against its formulas, token by token: penalties, then truncation, then the draw.
#[test]
fn tokens_are_those_of_the_formulas() {
    let recipe = Recipe::llama(71);
    let vocab = recipe.config.vocab_size;
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let prompt = Random::new(3).indices(30, vocab);
    let ids: Vec<u32> = (0..vocab as u32).collect();
    for options_ in [everything(), everything().temperature(0.0)] {
        let mut decoder = decoder(&target, &draft(&target), options(Method::Ar, 0, &options_));
        decoder.start(&prompt).expect("start");
        for _ in 0..40 {
            let known = decoder.tokens().to_vec();
            let token = decoder.round().expect("round")[0] as usize;
            let logits = decoder.logits().expect("logits");
            let expected = penalized(&logits, &ids, &prompt, &known[prompt.len()..], &options_);
            let adjusted: Vec<f32> = expected.values.iter().map(|&value| value as f32).collect();
            let temperature = options_.temperature;
            let terms =
                truncation::Terms { top_k: options_.top_k, top_p: options_.top_p, min_p: options_.min_p, temperature };
            let off = expected.bound.iter().copied().fold(0.0, f64::max) * 2.0;
            let (least, most) = if temperature > 0.0 { truncation::truncation(&adjusted, terms) } else { (-1e9, -1e9) };
            assert!(expected.values[token] >= least - off, "{token} was to be left out");
            let seed = noise(21);
            let noised = |id: usize| {
                let (noise, bound) = gumbel(seed, known.len() as u32, id as u32);
                let value = expected.values[id] + f64::from(temperature) * noise;
                (value, f64::from(temperature) * bound + off + value.abs() * 2f64.powi(-23))
            };
            let surely = (0..vocab).filter(|&id| expected.values[id] > most + off);
            let surely = surely.map(noised).map(|(value, off)| value - off).fold(f64::MIN, f64::max);
            let (value, off) = noised(token);
            assert!(value + off >= surely, "{token} has {value} ± {off}, another {surely} at least");
        }
    }
}

fn penalized(logits: &[f32], ids: &[u32], prompt: &[u32], answer: &[u32], options: &SamplingParams) -> Expected {
    let bias = |id: u32| {
        let sum = options.logit_bias.iter().filter(|(token, _)| *token == id).map(|(_, bias)| bias).sum();
        (!options.banned.contains(&id)).then_some(sum)
    };
    let terms = penalties::Terms {
        repetition: options.repetition_penalty,
        presence: options.presence_penalty,
        frequency: options.frequency_penalty,
    };
    penalties::penalties(logits, ids, prompt, answer, &bias, terms)
}

/// The first text's noise under a seed: SplitMix64's first output.
fn noise(seed: u64) -> u32 {
    Random::new(seed).bits() as u32
}

/// The target drafting for itself sees the same counts, so that nothing is refused.
#[test]
fn a_perfect_draft_is_accepted_whole_with_all_options() {
    let recipe = Recipe::qwen3(12);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    for sampling in [everything(), everything().temperature(0.0)] {
        let mut decoder = decoder(&target, &draft(&target), options(Method::Vsd, 6, &sampling));
        decode(&mut decoder, &[1, 2, 3], 60);
        assert_eq!(decoder.statistics().accepted_per_position(), vec![1.0; 6]);
    }
}

/// Its rows are there at once, and choose one after the other: each counts the proposals before it.
#[test]
fn a_parallel_drafts_rows_count_the_proposals_before_them() {
    let recipe = Recipe::llama(81);
    let vocab = recipe.config.vocab_size;
    let model = upload(&recipe, &plan(CacheFormat::F32));
    let prompt = Random::new(8).indices(20, vocab);
    let ids: Vec<u32> = (0..vocab as u32).collect();
    // Strong enough to change the order of most rows whose token was proposed before.
    let sampling = SamplingParams::default().presence_penalty(3.0).frequency_penalty(1.0);
    let mut decoder = decoder(&model, &draft(&model), options(Method::Pard, 9, &sampling));
    decoder.start(&prompt).expect("start");
    let mut differing = 0;
    for round in 0..6 {
        let known = decoder.tokens().to_vec();
        decoder.round().expect("round");
        let choices = Buffer::storage(device(), "choices", 128).expect("a small buffer");
        let sequence = ModelRunner::new(&model, CONTEXT, vocab, &choices).expect("a sequence");
        let (&last, before) = known.split_last().expect("a known token");
        sequence.prefill(before, 0).expect("prefill");
        let rows = [vec![last], vec![MASK; 8]].concat();
        sequence.run(Phase::Decode, &rows, before.len(), 9).expect("rows");
        let logits = sequence.logits(9).expect("logits");
        let mut answer = known[prompt.len()..].to_vec();
        let uncounted = answer.clone();
        for (row, proposal) in logits.chunks(vocab).zip(decoder.proposals().expect("proposals")) {
            let best = |answer: &[u32]| {
                let values = penalized(row, &ids, &prompt, answer, &sampling).values;
                (0..vocab).max_by(|&a, &b| values[a].total_cmp(&values[b])).expect("a token") as u32
            };
            assert_eq!(proposal, best(&answer), "round {round}, after {answer:?}");
            differing += usize::from(best(&uncounted) != proposal);
            answer.push(proposal);
        }
    }
    assert!(differing > 5, "{differing} rows chose otherwise for what stands before them");
}

#[test]
fn bans_and_biases_decide() {
    let recipe = Recipe::qwen2(91);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let write = |sampling: SamplingParams| {
        decode(&mut decoder(&target, &draft(&target), options(Method::Pard, 4, &sampling)), &[1, 2, 3], 40)
    };
    let free = write(drawn(1.0, 1));
    let banned_tokens: Vec<u32> = free.iter().step_by(3).copied().collect();
    let without = write(drawn(1.0, 1).banned(banned_tokens.clone()));
    assert!(without.iter().all(|token| !banned_tokens.contains(token)), "{without:?} without {banned_tokens:?}");
    let one = write(drawn(1.0, 1).logit_bias(vec![(19, 5000.0)]));
    assert_eq!(one, [19; 40]);
    // All but two tokens are banned, of which one is more frequent than it may be.
    let banned = (0..recipe.config.vocab_size as u32).filter(|id| ![7, 8].contains(id)).collect();
    let two = write(SamplingParams::default().banned(banned).frequency_penalty(50.0));
    assert!(two.windows(2).all(|pair| pair[0] != pair[1]), "they take turns: {two:?}");
}

/// A new start forgets what the last text counted, and other options may come with it.
#[test]
fn options_change_from_text_to_text() {
    let recipe = Recipe::qwen3(92);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let fresh = |sampling: &SamplingParams| {
        decode(&mut decoder(&target, &draft(&target), options(Method::Pard, 4, sampling)), &[1, 2, 3], 30)
    };
    let all = [drawn(0.0, 0), everything(), drawn(0.8, 5), everything(), drawn(0.0, 0)];
    for run_ahead in [false, true] {
        let options = options(Method::Pard, 4, &all[0]).run_ahead(Some(run_ahead));
        let mut decoder = decoder(&target, &draft(&target), options);
        for sampling in &all {
            decoder.set_sampling(sampling.clone()).expect("options in range");
            assert_eq!(decode(&mut decoder, &[1, 2, 3], 30), fresh(sampling), "ahead: {run_ahead}, {sampling:?}");
            assert_eq!(decode(&mut decoder, &[1, 2, 3], 30), fresh(sampling), "ahead: {run_ahead}, again");
        }
    }
}

/// Tokens that are dropped count no more: what follows is what followed before.
#[test]
fn a_text_that_was_cut_goes_on_as_before() {
    let recipe = Recipe::llama(93);
    let target = upload(&recipe, &plan(CacheFormat::F32));
    for (method, run_ahead) in [(Method::Ar, false), (Method::Pard, true)] {
        let options = options(method, 4, &everything()).run_ahead(Some(run_ahead));
        let mut decoder = decoder(&target, &draft(&target), options);
        let text = decode(&mut decoder, &[1, 2, 3], 40);
        decoder.truncate(3 + 12);
        while decoder.tokens().len() < 3 + 40 {
            decoder.round().expect("a round");
        }
        assert_eq!(decoder.tokens()[3..3 + 40], text, "{}, ahead: {run_ahead}", method.name());
    }
}

/// Unused options cost nothing: no dispatch is recorded beyond those of a greedy round.
#[test]
fn a_greedy_round_has_no_dispatch_for_options_that_are_not_used() {
    let device = Device::open(&AdapterQuery::default()).expect("an adapter");
    let recipe = Recipe::llama(1);
    let (plan, memory) = (device.default_plan(), Memory::new(recipe.tensors()));
    let model = Weights::upload(&device, &plan, &recipe.config, &memory, WeightDtype::Compact, &|_, _| ());
    let model = Arc::new(model.expect("upload"));
    let round = |sampling: &SamplingParams| -> Vec<String> {
        let options = options(Method::Pard, 4, sampling).run_ahead(Some(false));
        let mut decoder = decoder(&model, &draft(&model), options);
        decoder.start(&[1, 2, 3]).expect("start");
        device.start_profile(false).expect("timestamps");
        decoder.round().expect("a round");
        let profile = device.end_profile().expect("the profile");
        let kernels = profile.submits.iter().flatten().map(|dispatch| dispatch.kernel.to_owned());
        // Kernels of the layers are left out.
        let of_layers = ["embedding", "rms_norm", "rope", "attention", "attention_merge"];
        let others = kernels.filter(|kernel| !of_layers.contains(&&kernel[..]) && !kernel.starts_with("matmul"));
        others.collect()
    };
    // Without a temperature nothing is drawn, and nothing left out of the draw.
    let unused = SamplingParams::default().seed(9).top_k(5).top_p(0.5).min_p(0.5);
    let greedy = ["inputs", "argmax", "argmax_merge", "inputs", "argmax", "argmax_merge", "accept"];
    assert_eq!(round(&SamplingParams::default()), greedy);
    assert_eq!(round(&unused), greedy);
    assert_eq!(round(&drawn(1.0, 9)), greedy, "noise is drawn where the largest is looked for");
    let truncated = round(&unused.temperature(1.0));
    assert_eq!(truncated.iter().filter(|kernel| *kernel == "truncation").count(), 2, "{truncated:?}");
    assert_eq!(truncated.len(), greedy.len() + 2, "{truncated:?}");
    // A parallel draft's four rows take turns.
    let all = round(&everything());
    let count = |kernel: &str| all.iter().filter(|name| *name == kernel).count();
    assert_eq!(["penalties", "truncation", "argmax", "token_counts"].map(count), [5, 5, 5, 1], "{all:?}");
}
