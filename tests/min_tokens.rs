//! Answers that must not end yet: until they have so many tokens, what would end them is not chosen, and by every method the
//! same tokens are.

use std::sync::{Arc, LazyLock};

use pard::decoding::{
    AcceptanceRule, Draft, Engine, EngineOptions, FinishReason, Generation, Limits, Method, SamplingParams, Sequence,
};
use pard::low_level::gpu::CacheFormat;
use pard::model::Weights;
use pard::text::Grammar;
use pard::{Message, Model};

use crate::decoding::{CONTEXT, decode};
use crate::sampling::{MASK, decoder, draft, drawn, lengths, options};
use crate::sampling_options::everything;
use crate::support::gpu::{device, plan, upload};
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

/// Tokens at least.
const LEAST: usize = 17;

/// The answer of 40 tokens to a prompt, in which `held` tokens are none of the first ones.
fn held_back(decoder: &mut Sequence, held: &[u32], prompt: &[u32]) -> Vec<u32> {
    decoder.hold_back(held, LEAST).expect("room for masks");
    decode(decoder, prompt, 40)
}

/// The tokens that an answer has most of.
fn usual(answer: &[u32]) -> Vec<u32> {
    let mut tokens = answer.to_vec();
    tokens.sort_by_key(|token| (std::cmp::Reverse(answer.iter().filter(|other| *other == token).count()), *token));
    tokens.dedup();
    tokens.truncate(6);
    tokens
}

struct Case {
    target: Arc<Weights>,
    stranger: Arc<Weights>,
    prompt: Vec<u32>,
}

fn case(recipe: &Recipe) -> Case {
    let weights = |seed| upload(&Recipe { seed, ..recipe.clone() }, &plan(CacheFormat::F16));
    let prompt = Random::new(9).indices(21, recipe.config.vocab_size);
    Case { target: weights(recipe.seed), stranger: weights(recipe.seed + 1), prompt }
}

#[test]
fn every_method_holds_the_same_tokens_back() {
    for (recipe, sampling) in
        [(Recipe::llama(41), drawn(0.0, 0)), (Recipe::qwen3(42), drawn(1.0, 3)), (Recipe::llama(43), everything())]
    {
        let Case { target, stranger, prompt } = case(&recipe);
        let plain = |sampling| decoder(&target, &draft(&target), options(Method::Ar, 0, sampling));
        let free = decode(&mut plain(&sampling), &prompt, 40);
        let held = usual(&free);
        let alone = held_back(&mut plain(&sampling), &held, &prompt);
        // As if they were banned, at first.
        let banned = [sampling.banned.clone(), held.clone()].concat();
        let banned = decode(&mut plain(&sampling.clone().banned(banned)), &prompt, 40);
        assert_eq!(alone[..LEAST], banned[..LEAST]);
        assert!(alone[LEAST..].iter().any(|token| held.contains(token)), "{held:?} of {alone:?}");
        for drafts in lengths() {
            for (method, model) in
                [(Method::Vsd, &target), (Method::Pard, &target), (Method::Pard, &stranger), (Method::Ngram, &target)]
            {
                let options = options(method, drafts, &sampling).run_ahead(Some(true));
                let mut decoder = decoder(&target, &draft(model), options);
                let tokens = held_back(&mut decoder, &held, &prompt);
                assert_eq!(tokens, alone, "{}, K = {drafts}, {sampling:?}", method.name());
                // It holds for the next answer, until it is taken back.
                assert_eq!(decode(&mut decoder, &prompt, 40), alone);
                decoder.hold_back(&held, 0).expect("nothing to do");
                assert_eq!(decode(&mut decoder, &prompt, 40), free, "{}, K = {drafts}", method.name());
            }
        }
        // The rejection rule draws other tokens.
        let options = options(Method::Pard, 4, &drawn(1.0, 6)).acceptance(AcceptanceRule::Rejection);
        let other = held_back(&mut decoder(&target, &draft(&stranger), options), &held, &prompt);
        assert!(!other[..LEAST].iter().any(|token| held.contains(token)), "{held:?} of {other:?}");
    }
}

/// Sequences that share passes: one holds tokens back, others do not.
#[test]
fn rows_of_others_are_not_masked() {
    let Case { target, prompt, .. } = case(&Recipe::llama(44));
    let options = |drafts| options(Method::Vsd, drafts, &drawn(0.0, 0));
    let free = decode(&mut decoder(&target, &draft(&target), options(3)), &prompt, 40);
    let held = usual(&free);
    let alone = held_back(&mut decoder(&target, &draft(&target), options(3)), &held, &prompt);
    let engine = EngineOptions::default().context(CONTEXT).sequences(3);
    let engine = Engine::from_weights(&target, Some(&draft(&target)), engine).expect("an engine");
    let mut sequences: Vec<Sequence> = (0..3).map(|_| engine.add(options(3)).expect("a sequence")).collect();
    sequences[1].hold_back(&held, LEAST).expect("room for masks");
    for sequence in &mut sequences {
        sequence.start(&prompt).expect("start");
    }
    while sequences.iter().any(|sequence| sequence.tokens().len() < prompt.len() + 40) {
        engine.step(&mut sequences.iter_mut().collect::<Vec<_>>()).expect("a step");
    }
    for (sequence, expected) in sequences.iter().zip([&free, &alone, &free]) {
        assert_eq!(sequence.tokens()[prompt.len()..][..40], *expected);
    }
}

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    Recipe::llama(11).write(folder.path());
    Model::load(device(), folder.path().to_str().expect("UTF-8"), Default::default()).expect("a model")
});

/// An answer: its text, its tokens, the text of each, and why it ended.
fn write(sampling: &SamplingParams, method: Method, limits: Limits) -> (String, Vec<u32>, Vec<String>, FinishReason) {
    let options = options(method, if method == Method::Ar { 0 } else { 4 }, sampling).context(512);
    let draft = Draft::new(&MODEL, &MODEL, Some(MASK)).expect("a draft");
    let engine = Engine::new(&MODEL, Some(&draft), EngineOptions::default().context(512)).expect("an engine");
    let mut sequence = engine.add(options).expect("a sequence");
    let prompt = MODEL.text.chat_tokens(&[Message::user("the")], Default::default()).expect("tokens");
    let mut answer = Generation::start(&mut sequence, &MODEL.text, &prompt, limits).expect("start");
    let (mut text, mut texts) = (String::new(), Vec::new());
    while answer.finish_reason().is_none() {
        let piece = answer.round().expect("a round");
        text.push_str(&piece.text);
        texts.extend(piece.texts);
    }
    (text, answer.output().to_vec(), texts, answer.finish_reason().expect("an end"))
}

#[test]
fn an_answer_goes_on_until_it_has_its_tokens() {
    let plain = drawn(0.0, 0);
    let (_, ended, _, finish) = write(&plain, Method::Ar, Limits::default().max_tokens(400));
    assert_eq!(finish, FinishReason::Stop, "this one ends by itself");
    let least = ended.len() + 5;
    let whole = Limits::default().max_tokens(400).min_tokens(least);
    let (long, tokens, texts, _) = write(&plain, Method::Ar, whole.clone());
    assert!(tokens.len() > least && tokens[..ended.len() - 1] == ended[..ended.len() - 1]);
    let ends = |token: &u32| MODEL.text.stop_tokens.contains(token);
    assert!(!tokens[..least].iter().any(ends));
    assert_eq!(write(&plain, Method::Pard, whole).0, long);

    // Tokens that the caller names are held back alike.
    let early = Limits::default().max_tokens(60).stop_tokens(vec![ended[2]]);
    assert!(write(&plain, Method::Ar, early.clone()).1.len() <= 3);
    for method in [Method::Ar, Method::Vsd, Method::Pard, Method::Ngram] {
        let (_, tokens, ..) = write(&plain, method, early.clone().min_tokens(12));
        assert!(tokens.len() > 12 && !tokens[..12].contains(&ended[2]), "{tokens:?}");
    }

    // Texts are not looked for before.
    let after: usize = texts[..least].iter().map(String::len).sum();
    let again = |part: &&str| long[..after].contains(part) && long[after..].contains(part);
    let parts: Vec<&str> = long[after..].char_indices().filter_map(|(at, _)| long[after + at..].get(..1)).collect();
    let stop = *parts.iter().find(|part| again(part)).expect("a text that comes twice");
    let limits = Limits::default().max_tokens(400).stop(vec![stop.to_owned()]);
    assert_eq!(write(&plain, Method::Ar, limits.clone()).0, long[..long.find(stop).expect("the stop text")]);
    let end = after + long[after..].find(stop).expect("the stop text");
    for method in [Method::Ar, Method::Pard] {
        let (text, _, _, finish) = write(&plain, method, limits.clone().min_tokens(least));
        assert_eq!((text.as_str(), finish), (&long[..end], FinishReason::Stop));
    }
}

#[test]
fn a_grammar_that_allows_an_end_waits_and_one_that_is_complete_ends() {
    for (regex, least, len) in [("[ab]{3,40}", 20, 20..=40), ("[ab]{3}", 20, 3..=3)] {
        let sampling = drawn(0.0, 0).grammar(Some(Grammar::Regex(regex.to_owned())));
        let limits = Limits::default().max_tokens(100).min_tokens(least);
        let (alone, tokens, _, finish) = write(&sampling, Method::Ar, limits.clone());
        assert!(len.contains(&alone.len()) && finish == FinishReason::Stop, "{alone}");
        assert!(tokens.len() > least || len == (3..=3));
        for method in [Method::Vsd, Method::Pard, Method::Ngram] {
            assert_eq!(write(&sampling, method, limits.clone()).0, alone, "{regex}, {}", method.name());
        }
    }
}
