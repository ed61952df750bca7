//! Prompt-lookup drafting: the text is AR's, and a text that repeats itself takes few rounds.

use std::sync::Arc;

use pard::Error;
use pard::decoding::{
    AcceptanceRule, Costs, DraftLength, MAX_DRAFTS, Method, NgramOptions, SamplingParams, Sequence, SequenceOptions,
};
use pard::error::OptionName;
use pard::low_level::gpu::CacheFormat;
use pard::low_level::inspect::Inspect;
use pard::model::PassCost;

use crate::decoding::{decode, draft};
use crate::sampling::{drawn, options};
use crate::sampling_options::everything;
use crate::support::gpu::{plan, upload};
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

/// A prompt that holds a passage twice, so that there is something to look up from the beginning.
fn prompt(vocab: usize) -> Vec<u32> {
    let passage = Random::new(7).indices(9, vocab);
    [&passage[..], &Random::new(8).indices(5, vocab), &passage[..]].concat()
}

#[test]
fn the_longest_match_wins_and_of_equals_the_latest() {
    let of = |longest, shortest, tokens: &[u32], drafts| {
        NgramOptions::default().longest(longest).shortest(shortest).propose(tokens, drafts)
    };
    // [2, 3] stands at 1 and at 5; [9, 2, 3] nowhere else but at the end.
    assert_eq!(of(3, 1, &[1, 2, 3, 4, 8, 2, 3, 5, 6, 9, 2, 3], 3), vec![5, 6, 9]);
    // [1, 2, 3] at the beginning is longer than [2, 3] later on.
    assert_eq!(of(3, 1, &[1, 2, 3, 4, 8, 2, 3, 5, 1, 2, 3], 2), vec![4, 8]);
    assert_eq!(of(2, 1, &[1, 2, 3, 4, 8, 2, 3, 5, 1, 2, 3], 2), vec![5, 1]);
    // Tokens seen for the first time propose nothing, nor does one token alone where two are required.
    for (shortest, tokens) in [(1, &[1, 2, 3, 4][..]), (1, &[1]), (2, &[1, 2, 3, 2])] {
        assert!(of(3, shortest, tokens, 8).is_empty(), "{tokens:?}");
    }
    assert!(of(3, 1, &[1, 1], 0).is_empty());
    assert_eq!(of(3, 1, &[1, 2, 3, 2], 1), vec![3]);
    // A repetition goes on as long as it may.
    assert_eq!(of(3, 1, &[9, 1, 2, 1, 2, 1, 2], 5), vec![1, 2, 1, 2, 1]);
    assert_eq!(of(3, 1, &[7, 7], 4), vec![7, 7, 7, 7]);
}

#[test]
fn the_text_is_ars() {
    let repeated = drawn(0.7, 3).frequency_penalty(-0.6);
    for (recipe, sampling) in Recipe::each_family(111).into_iter().zip([drawn(0.0, 0), repeated, everything()]) {
        let target = upload(&recipe, &plan(CacheFormat::F16));
        let prompt = prompt(recipe.config.vocab_size);
        let write = |options: SequenceOptions| {
            let mut decoder = Sequence::new(&target, None, options).expect("it needs no draft");
            decoder.set_costs(Costs {
                target: PassCost::from_points(&[(1, 1.0), (32, 2.0)]),
                draft: PassCost::from_points(&[]),
            });
            let text = decode(&mut decoder, &prompt, 60);
            let device = decoder.device_session().expect("the session");
            assert_eq!(device, decoder.session(), "the host follows the device");
            (text, decoder.statistics().clone())
        };
        let (alone, _) = write(options(Method::Ar, 0, &sampling));
        let mut proposed = 0;
        for drafts in [DraftLength::Fixed(1), DraftLength::Fixed(4), DraftLength::Fixed(MAX_DRAFTS), DraftLength::Auto]
        {
            for (ngram, run_ahead) in
                [(NgramOptions::default(), true), (NgramOptions::default().longest(1).shortest(1), false)]
            {
                let run_ahead = Some(run_ahead);
                let (text, statistics) =
                    write(options(Method::Ngram, 0, &sampling).drafts(drafts).ngram(ngram).run_ahead(run_ahead));
                assert_eq!(text, alone, "{:?}, K = {drafts}, {ngram:?}", recipe.config.family);
                proposed += statistics.proposed.iter().sum::<usize>();
            }
        }
        assert!(proposed > 100, "{proposed} proposals");
    }
}

/// A text of one token over and over: two rounds until it has stood twice, and from then on K + 1 tokens each.
#[test]
fn a_repetition_is_accepted_whole() {
    let recipe = Recipe::qwen3(112);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let sampling = SamplingParams::default().logit_bias(vec![(19, 5000.0)]);
    for drafts in [1, 4, 16] {
        let mut decoder = Sequence::new(&target, None, options(Method::Ngram, drafts, &sampling)).expect("a decoder");
        decoder.start(&[1, 2, 3]).expect("start");
        for _ in 0..5 {
            decoder.round().expect("a round");
        }
        let statistics = decoder.statistics();
        assert_eq!(statistics.plain_rounds(), 2, "nothing to look up, and then one 19 that nothing follows");
        assert_eq!(statistics.committed_tokens, 2 + 3 * (drafts + 1), "K = {drafts}");
        assert_eq!(statistics.accepted_per_position(), vec![1.0; drafts], "K = {drafts}");
        assert!(decoder.tokens()[3..].iter().all(|&token| token == 19));
    }
}

/// A stranger's proposals are refused; n-grams take its place where they promise more, and the text stays AR's. The draft
/// reads what it missed before it proposes again, so that a perfect one stays perfect.
#[test]
fn n_grams_stand_in_for_an_unsure_draft() {
    let repeated = drawn(0.7, 3).frequency_penalty(-0.6);
    for (recipe, sampling) in Recipe::each_family(114).into_iter().zip([drawn(0.0, 0), repeated, everything()]) {
        let target = upload(&recipe, &plan(CacheFormat::F16));
        let stranger = upload(&Recipe { seed: 115, ..recipe.clone() }, &plan(CacheFormat::F16));
        let prompt = prompt(recipe.config.vocab_size);
        let alone = {
            let mut decoder =
                Sequence::new(&target, None, options(Method::Ar, 0, &sampling)).expect("it needs no draft");
            decode(&mut decoder, &prompt, 60)
        };
        let mut stood_in = 0;
        for method in [Method::Vsd, Method::Pard] {
            for (model, drafts) in [
                (&stranger, DraftLength::Fixed(1)),
                (&stranger, DraftLength::Fixed(5)),
                (&stranger, DraftLength::Auto),
                (&target, DraftLength::Fixed(3)),
            ] {
                let options = options(method, 0, &sampling).drafts(drafts).with_ngrams(true);
                let mut decoder = Sequence::new(&target, Some(&draft(model)), options).expect("a decoder");
                decoder.set_costs(Costs {
                    target: PassCost::from_points(&[(1, 1.0), (32, 2.0)]),
                    draft: PassCost::from_points(&[(1, 0.05), (32, 0.1)]),
                });
                let text = decode(&mut decoder, &prompt, 60);
                assert_eq!(text, alone, "{:?}, {}, K = {drafts}", recipe.config.family, method.name());
                let device = decoder.device_session().expect("the session");
                assert_eq!(device, decoder.session(), "the host follows the device");
                let statistics = decoder.statistics();
                let own = statistics.rounds - statistics.ngram_rounds;
                assert!(own > 0, "a draft is not forgotten");
                if Arc::ptr_eq(model, &target) && method == Method::Vsd {
                    let refused: f64 = statistics.accepted_per_position().iter().map(|share| 1.0 - share).sum();
                    assert!(
                        refused * statistics.rounds as f64 <= 3.0 * statistics.ngram_rounds as f64,
                        "{statistics:?}"
                    );
                } else {
                    stood_in += statistics.ngram_rounds;
                }
            }
        }
        assert!(stood_in > 0, "{:?}: n-grams had no chance", recipe.config.family);
    }
}

#[test]
fn options_that_make_no_sense_are_refused_by_name() {
    let recipe = Recipe::llama(113);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let refused = |options: SequenceOptions| match Sequence::new(&target, None, options).map(drop) {
        Err(Error::Option { option, .. }) => option,
        other => panic!("{other:?}"),
    };
    for (longest, shortest) in [(3, 0), (1, 2), (65, 1), (0, 0)] {
        let ngram = NgramOptions::default().longest(longest).shortest(shortest);
        assert_eq!(refused(options(Method::Ngram, 4, &drawn(0.0, 0)).ngram(ngram)), OptionName::Ngram);
    }
    let acceptance = AcceptanceRule::Rejection;
    assert_eq!(refused(options(Method::Ngram, 4, &drawn(1.0, 0)).acceptance(acceptance)), OptionName::Acceptance);
    let stand_ins = options(Method::Vsd, 4, &drawn(1.0, 0)).acceptance(acceptance).with_ngrams(true);
    assert_eq!(refused(stand_ins), OptionName::Acceptance);
}
