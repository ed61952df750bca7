//! The rule of speculative decoding, on toy models: what planted faults showed to be the three tests needed.
//! *Lossless* misses "accept one too few"; *perfect draft* catches that; the cache contents catch a draft cut short or
//! a mask row left behind.

use crate::oracle::accept::accept;
use crate::oracle::speculative::{Proposer, Token, ToyDecoder, ToyModel};

const VOCAB: u32 = 7;
pub const MASK: Token = VOCAB;
const NEW_TOKENS: usize = 60;

/// Quality of a draft: how often it predicts the target's token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quality {
    Perfect,
    MostlyRight,
    Arbitrary,
    AlwaysWrong,
}

pub const QUALITIES: [Quality; 4] = [Quality::Perfect, Quality::MostlyRight, Quality::Arbitrary, Quality::AlwaysWrong];

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    Vsd,
    Pard,
}

fn hash(seed: u64, tokens: &[Token]) -> u64 {
    tokens.iter().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |state, &token| {
        let mixed = (state ^ u64::from(token)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 29)
    })
}

/// The target: every token so far and its position matter, so that no stale or missing row goes unseen.
pub fn target_next(seed: u64, tokens: &[Token]) -> Token {
    assert!(tokens.iter().all(|&token| token < VOCAB), "a mask reached the target: {tokens:?}");
    (hash(seed, tokens) % u64::from(VOCAB)) as Token
}

/// A draft of some quality; after j masks it predicts j tokens further on, as a parallel draft does.
pub fn draft_next(seed: u64, quality: Quality, tokens: &[Token]) -> Token {
    let real = tokens.iter().position(|&token| token == MASK).unwrap_or(tokens.len());
    assert!(tokens[real..].iter().all(|&token| token == MASK), "a mask row was left in the cache: {tokens:?}");
    let mut text = tokens[..real].to_vec();
    for _ in real..=tokens.len() {
        text.push(target_next(seed, &text));
    }
    let right = text[text.len() - 1];
    let dice = hash(!seed, &text);
    match quality {
        Quality::Perfect => right,
        Quality::MostlyRight if !dice.is_multiple_of(4) => right,
        Quality::MostlyRight | Quality::AlwaysWrong => (right + 1) % VOCAB,
        Quality::Arbitrary => (dice % u64::from(VOCAB)) as Token,
    }
}

pub fn decoder<'a>(seed: u64, method: Method, quality: Quality, draft_len: usize, prompt: &[Token]) -> ToyDecoder<'a> {
    let draft = ToyModel::new(move |tokens| draft_next(seed, quality, tokens));
    let proposer = match method {
        Method::Vsd => Proposer::Chain(draft),
        Method::Pard => Proposer::Parallel { draft, mask: MASK },
    };
    ToyDecoder::new(ToyModel::new(move |tokens| target_next(seed, tokens)), proposer, draft_len, prompt)
}

pub fn prompt(seed: u64) -> Vec<Token> {
    (0..=seed % 4).map(|position| (hash(seed, &[position as u32]) % u64::from(VOCAB)) as Token).collect()
}

/// Greedy text by definition: no caches, no rounds.
fn greedy(seed: u64, prompt: &[Token]) -> Vec<Token> {
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + NEW_TOKENS {
        tokens.push(target_next(seed, &tokens));
    }
    tokens
}

fn every_case(mut case: impl FnMut(u64, Method, Quality, usize)) {
    for seed in 0..6 {
        for method in [Method::Vsd, Method::Pard] {
            for quality in QUALITIES {
                for draft_len in 1..=16 {
                    case(seed, method, quality, draft_len);
                }
            }
        }
    }
}

#[test]
fn lossless_for_every_draft_length_and_quality() {
    for seed in 0..6 {
        let target = ToyModel::new(move |tokens| target_next(seed, tokens));
        let mut plain = ToyDecoder::new(target, Proposer::None, 0, &prompt(seed));
        for _ in 0..NEW_TOKENS {
            assert_eq!(plain.round().len(), 1);
        }
        assert_eq!(plain.tokens, greedy(seed, &prompt(seed)), "AR, seed {seed}");
    }
    every_case(|seed, method, quality, draft_len| {
        let expected = greedy(seed, &prompt(seed));
        let mut decoder = decoder(seed, method, quality, draft_len, &prompt(seed));
        while decoder.tokens.len() < expected.len() {
            let before = decoder.tokens.len();
            let added = decoder.round();
            assert!((1..=draft_len + 1).contains(&added.len()));
            assert_eq!(decoder.tokens[before..], added);
        }
        assert_eq!(decoder.tokens[..expected.len()], expected, "{method:?}, {quality:?}, K = {draft_len}, seed {seed}");
    });
}

#[test]
fn a_perfect_draft_is_accepted_whole_and_a_wrong_one_never() {
    every_case(|seed, method, quality, draft_len| {
        let expected = match quality {
            Quality::Perfect => draft_len + 1,
            Quality::AlwaysWrong => 1,
            Quality::MostlyRight | Quality::Arbitrary => return,
        };
        let mut decoder = decoder(seed, method, quality, draft_len, &prompt(seed));
        for round in 0..8 {
            let added = decoder.round().len();
            assert_eq!(added, expected, "{method:?}, K = {draft_len}, seed {seed}, round {round}");
        }
    });
}

#[test]
fn caches_hold_exactly_the_committed_tokens_after_every_round() {
    every_case(|seed, method, quality, draft_len| {
        let context = format!("{method:?}, {quality:?}, K = {draft_len}, seed {seed}");
        let mut decoder = decoder(seed, method, quality, draft_len, &prompt(seed));
        for round in 0..12 {
            let before = decoder.tokens.len();
            let kept = decoder.round().len();
            let tokens = &decoder.tokens;
            assert_eq!(decoder.target.cache, tokens[..tokens.len() - 1], "target, {context}, round {round}");
            let (draft, expected) = match &decoder.proposer {
                Proposer::None => unreachable!("both methods have a draft"),
                Proposer::Chain(draft) => (draft, (before + draft_len - 1).min(tokens.len() - 1)),
                Proposer::Parallel { draft, .. } => (draft, tokens.len() - kept),
            };
            assert_eq!(draft.cache, tokens[..expected], "draft, {context}, round {round}");
        }
    });
}

#[test]
fn forwards_have_the_rows_the_method_names() {
    every_case(|seed, method, quality, draft_len| {
        const ROUNDS: usize = 10;
        let mut decoder = decoder(seed, method, quality, draft_len, &prompt(seed));
        for _ in 0..ROUNDS {
            decoder.round();
        }
        assert_eq!(decoder.target.forward_rows, [draft_len + 1; ROUNDS], "verify");
        match &decoder.proposer {
            Proposer::None => unreachable!("both methods have a draft"),
            Proposer::Chain(draft) => {
                assert_eq!(draft.forward_rows.len(), ROUNDS * draft_len);
                assert!(draft.forward_rows.iter().all(|&rows| rows == 1 || rows == 2));
            }
            Proposer::Parallel { draft, .. } => {
                assert_eq!(draft.forward_rows.len(), ROUNDS);
                assert!(draft.forward_rows.iter().all(|rows| (draft_len..=2 * draft_len).contains(rows)));
            }
        }
    });
}

#[test]
fn accept_keeps_the_longest_agreeing_prefix_and_one_more() {
    assert_eq!(accept(&[], &[5]), [5]);
    assert_eq!(accept(&[1, 2, 3], &[1, 2, 3, 4]), [1, 2, 3, 4]);
    assert_eq!(accept(&[1, 2, 3], &[9, 2, 3, 4]), [9]);
    assert_eq!(accept(&[1, 2, 3], &[1, 9, 3, 4]), [1, 9]);
    assert_eq!(accept(&[1, 2, 3], &[1, 2, 9, 4]), [1, 2, 9]);
    assert_eq!(accept(&[7], &[7, 7]), [7, 7]);
}
