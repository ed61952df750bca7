//! The rejection rule of speculative sampling (Leviathan et al. 2023, arXiv:2211.17192): the target's distribution is kept,
//! and proposals are accepted as often as the two distributions agree.

use pard::decoding::{AcceptanceRule, Costs, DraftLength, Method, SamplingParams, SequenceOptions};
use pard::low_level::gpu::CacheFormat;
use pard::model::PassCost;

use crate::decoding::decode;
use crate::oracle::truncation::Terms;
use crate::sampling::{FEW, chain, chances, decoder, draft, drawn, draws_as_softmax_says, options, transitions};
use crate::sampling_options::everything;
use crate::support::gpu::{plan, upload};
use crate::support::shared_draft::SharedDraft;
use crate::support::tiny_model::Recipe;

fn rejecting(method: Method, drafts: usize, sampling: &SamplingParams) -> SequenceOptions {
    options(method, drafts, sampling).acceptance(AcceptanceRule::Rejection)
}

#[test]
fn tokens_are_distributed_as_the_targets() {
    let (recipe, target) = chain(61, FEW);
    let stranger = upload(&Recipe { seed: 62, ..recipe }, &plan(CacheFormat::F16));
    let (_, other_chain) = chain(63, FEW);
    let logits = transitions(&target);
    let terms = |temperature, top_k, top_p| Terms { top_k, top_p, min_p: 0.0, temperature };
    for (method, drafts, proposer, terms) in [
        (Method::Vsd, 3, &other_chain, terms(1.0, 0, 1.0)),
        (Method::Vsd, 2, &stranger, terms(1.2, 11, 0.9)),
        (Method::Pard, 4, &stranger, terms(1.4, 0, 1.0)),
    ] {
        let mut decoder = decoder(&target, &draft(proposer), rejecting(method, drafts, &drawn(0.0, 0)));
        draws_as_softmax_says(&mut decoder, &logits, terms);
        let (statistics, name) = (decoder.statistics(), method.name());
        let accepted: usize = statistics.accepted.iter().sum();
        let proposed: usize = statistics.proposed.iter().sum();
        assert!(accepted > 0 && accepted < proposed, "{name}: {accepted} of {proposed}: both branches are taken");
    }
}

/// One proposal a round is accepted with the chance that p and q have in common: sum of min(p, q).
#[test]
fn proposals_are_accepted_as_often_as_the_distributions_agree() {
    let ((_, target), (_, other)) = (chain(61, FEW), chain(63, FEW));
    let (ours, theirs) = (transitions(&target), transitions(&other));
    let terms = Terms { top_k: 0, top_p: 1.0, min_p: 0.0, temperature: 1.0 };
    let overlap = |token: u32| -> f64 {
        let (p, q) = (chances(&ours[token as usize], terms), chances(&theirs[token as usize], terms));
        p.iter().zip(&q).map(|(p, q)| p.min(*q)).sum()
    };
    let mut decoder = decoder(&target, &draft(&other), rejecting(Method::Vsd, 1, &drawn(1.0, 0)));
    let (mut accepted, mut expected, mut variance, mut rounds) = (0.0, 0.0, 0.0, 0);
    for seed in 0..12 {
        decoder.set_sampling(drawn(1.0, seed)).expect("options in range");
        decoder.start(&[11]).expect("start");
        while decoder.tokens().len() < 100 {
            let last = *decoder.tokens().last().expect("a token");
            let chance = overlap(last);
            accepted += (decoder.round().expect("a round").len() - 1) as f64;
            expected += chance;
            variance += chance * (1.0 - chance);
            rounds += 1;
        }
    }
    assert!(
        (accepted - expected).abs() < 5.0 * variance.sqrt() && expected > 100.0,
        "{accepted} of {rounds} were accepted, {expected:.1} ± {:.1} were to be",
        variance.sqrt()
    );
}

/// p and q are the same then, and nothing is refused.
#[test]
fn a_perfect_draft_is_accepted_whole() {
    let recipe = Recipe::qwen3(121);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    for sampling in [drawn(1.0, 3), everything()] {
        let mut decoder = decoder(&target, &draft(&target), rejecting(Method::Vsd, 5, &sampling));
        decode(&mut decoder, &[1, 2, 3], 60);
        assert_eq!(decoder.statistics().accepted_per_position(), vec![1.0; 5]);
    }
}

#[test]
fn a_seed_gives_the_same_text_and_greedy_decoding_is_ars() {
    let recipe = Recipe::llama(122);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let stranger = upload(&Recipe { seed: 123, ..recipe }, &plan(CacheFormat::F16));
    let write = |options: SequenceOptions| {
        let mut decoder = decoder(&target, &draft(&stranger), options);
        decoder.set_costs(Costs {
            target: PassCost::from_points(&[(1, 1.0), (32, 2.0)]),
            draft: PassCost::from_points(&[(1, 0.1), (32, 0.2)]),
        });
        decode(&mut decoder, &[1, 2, 3], 40)
    };
    let ahead = |run_ahead, options: SequenceOptions| options.run_ahead(Some(run_ahead));
    let greedy = write(options(Method::Ar, 0, &drawn(0.0, 0)));
    for method in [Method::Vsd, Method::Pard] {
        assert_eq!(write(rejecting(method, 4, &drawn(0.0, 9))), greedy, "{}", method.name());
        for sampling in [drawn(1.0, 5), everything()] {
            let text = write(ahead(false, rejecting(method, 4, &sampling)));
            assert_eq!(write(ahead(true, rejecting(method, 4, &sampling))), text, "{}, running ahead", method.name());
            let other = write(rejecting(method, 4, &sampling.clone().seed(77)));
            assert_ne!(other, text, "{}: another seed", method.name());
            assert!(text.iter().all(|token| !sampling.banned.contains(token)), "{text:?}");
        }
        // Rounds without proposals are part of it.
        let auto = rejecting(method, 0, &drawn(1.0, 5)).drafts(DraftLength::Auto);
        assert_eq!(write(auto.clone()), write(auto), "{}, K = auto", method.name());
    }
}

/// A draft that knows a third of the tokens: what it cannot propose is drawn from what is left.
#[test]
fn a_draft_of_fewer_tokens_keeps_the_distribution() {
    let (recipe, target) = chain(61, FEW);
    let files = SharedDraft::new(&recipe, crate::sampling::MASK, Some(SharedDraft::third(FEW)));
    let model = files.upload(&target, &plan(CacheFormat::F16)).expect("a draft");
    let mut decoder = decoder(&target, &draft(&model), rejecting(Method::Vsd, 2, &drawn(0.0, 0)));
    let terms = Terms { top_k: 0, top_p: 1.0, min_p: 0.0, temperature: 1.0 };
    draws_as_softmax_says(&mut decoder, &transitions(&target), terms);
    assert!(decoder.statistics().tokens_per_round() > 1.0, "some proposals are accepted");
}
