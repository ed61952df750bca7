//! Caches in files: a conversation that was restored writes and proposes what the one that was never away does; files that are
//! damaged or of other models are refused, and change nothing.

use std::path::Path;
use std::sync::Arc;

use pard::Error;
use pard::decoding::{Draft, DraftLength, Engine, EngineOptions, Method, Sequence, SequenceOptions};
use pard::low_level::gpu::CacheFormat;
use pard::low_level::inspect::Inspect;
use pard::low_level::ops::Session;
use pard::model::Weights;
use safetensors::SafeTensors;

use crate::decoding::{CONTEXT, decoder, draft};
use crate::support::gpu::{plan, upload};
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;
use crate::target_states::Pair;

/// Tokens and proposals of some rounds.
fn rounds(sequence: &mut Sequence, count: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
    let mut round = || {
        let tokens = sequence.round().expect("round").to_vec();
        (tokens, sequence.proposals().expect("proposals"))
    };
    (0..count).map(|_| round()).collect()
}

/// A sequence beside another one, in an engine with a longer context.
fn elsewhere(target: &Arc<Weights>, draft: &Draft, method: Method) -> [Sequence; 2] {
    let options = EngineOptions::default().context(2 * CONTEXT).sequences(2);
    let engine = Engine::from_weights(target, Some(draft), options).expect("an engine");
    [21, 22].map(|seed| {
        let options = SequenceOptions::default().method(method).drafts(DraftLength::Fixed(4)).context(2 * CONTEXT);
        let mut sequence = engine.add(options).expect("a sequence");
        sequence.start(&Random::new(seed).indices(90, 200)).expect("start");
        sequence
    })
}

fn goes_on(context: &str, target: &Arc<Weights>, draft: &Draft, method: Method, folder: &Path) {
    let path = folder.join("caches");
    let mut stayed = decoder(target, draft, method, 4);
    stayed.start(&Random::new(20).indices(70, target.config().vocab_size)).expect("start");
    rounds(&mut stayed, 3);
    // An answer ends within a round.
    stayed.truncate(stayed.tokens().len() - 1);
    stayed.save_caches(&path).expect("saved");
    let turn = [stayed.tokens(), &[7, 11, 13]].concat();

    let expected = rounds(&mut stayed, 3);
    let [mut neighbour, mut restored] = elsewhere(target, draft, method);
    let mut apart = elsewhere(target, draft, method);
    restored.restore_caches(&path).expect("restored");
    assert_eq!(restored.tokens(), Sequence::saved_tokens(&path).expect("tokens"), "{context}");
    assert_eq!(rounds(&mut restored, 3), expected, "{context}");
    let rows = |sequence: &Sequence| {
        let Session { tokens, target_rows, draft_rows } = sequence.session();
        (tokens, target_rows, matches!(method, Method::Vsd | Method::Pard).then_some(draft_rows))
    };
    assert_eq!(rows(&restored), rows(&stayed), "{context}");
    assert_eq!(rounds(&mut neighbour, 2), rounds(&mut apart[0], 2), "{context}: the other sequence");

    stayed.resume(&turn).expect("another turn");
    let expected = rounds(&mut stayed, 3);
    restored.restore_caches(&path).expect("restored again");
    let known = restored.session().target_rows as usize;
    restored.resume(&turn).expect("another turn");
    assert!(known > 70 && restored.statistics().reused_tokens == known, "{context}: {known} rows");
    assert_eq!(rounds(&mut restored, 3), expected, "{context}: another turn");
}

#[test]
fn a_restored_conversation_writes_and_proposes_as_one_that_stayed() {
    let folder = tempfile::tempdir().expect("a folder");
    for (recipe, format) in
        Recipe::each_family(3).into_iter().zip([CacheFormat::F16, CacheFormat::Q8_0, CacheFormat::F32])
    {
        let plan = plan(format);
        let (target, other) = (upload(&recipe, &plan), upload(&Recipe { seed: 4, ..recipe.clone() }, &plan));
        for method in [Method::Ar, Method::Vsd, Method::Pard, Method::Ngram] {
            let context = format!("{:?}, {}", recipe.config.family, method.name());
            goes_on(&context, &target, &draft(&other), method, folder.path());
        }
    }
    let (target, reader) = Pair::of(Recipe::llama(51)).upload(&plan(CacheFormat::F16));
    goes_on("a draft that reads states", &target, &reader, Method::Pard, folder.path());
}

/// Options that count tokens, and grammars of their own, hold for what follows.
#[test]
fn a_restored_conversation_keeps_to_its_own_options() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("caches");
    let recipe = Recipe::qwen3(3);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let prompt = Random::new(20).indices(30, recipe.config.vocab_size);
    let penalised = || {
        let mut sequence = decoder(&target, &draft(&target), Method::Pard, 4);
        let sampling = sequence.options().sampling.clone().presence_penalty(1.5).temperature(0.7).seed(5);
        sequence.set_sampling(sampling).expect("sampling");
        sequence
    };
    let mut stayed = penalised();
    stayed.start(&prompt).expect("start");
    stayed.save_caches(&path).expect("saved");
    let mut restored = penalised();
    restored.restore_caches(&path).expect("restored");
    assert_eq!(rounds(&mut restored, 6), rounds(&mut stayed, 6));
}

#[test]
fn damaged_and_foreign_files_are_refused_and_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("caches");
    let recipe = Recipe::qwen3(3);
    let vocab = recipe.config.vocab_size;
    let of_plan = plan(CacheFormat::F16);
    let of_seed = |seed| upload(&Recipe { seed, ..recipe.clone() }, &of_plan);
    let (target, other) = (of_seed(3), of_seed(4));
    let mut saved = decoder(&target, &draft(&other), Method::Pard, 4);
    assert!(matches!(saved.save_caches(&path), Err(Error::EmptyPrompt)));
    saved.start(&Random::new(20).indices(70, vocab)).expect("start");
    saved.save_caches(&path).expect("saved");
    let bytes = std::fs::read(&path).expect("the file");

    let mut sequence = decoder(&target, &draft(&other), Method::Pard, 4);
    sequence.start(&Random::new(21).indices(40, vocab)).expect("start");
    let before = (sequence.tokens().to_vec(), sequence.session());
    let mut refused = |bytes: &[u8], case: &str| {
        std::fs::write(&path, bytes).expect("a file");
        let error = sequence.restore_caches(&path).expect_err(case);
        assert!(matches!(error, Error::Damaged { .. }), "{case}: {error}");
    };
    for len in [0, 7, 200, bytes.len() / 2, bytes.len() - 1] {
        refused(&bytes[..len], "cut off");
    }
    // A bit in each tensor, and in the checksum itself.
    let (header, _) = SafeTensors::read_metadata(&bytes).expect("a header");
    let tensors = SafeTensors::deserialize(&bytes).expect("tensors");
    let base = bytes.as_ptr() as usize;
    let inside = tensors.iter().map(|(_, tensor)| tensor.data().as_ptr() as usize - base + tensor.data().len() / 2);
    let sum = bytes.windows(5).position(|window| window == b"crc32").expect("a checksum") + 9;
    assert!(header > sum && tensors.len() == 1 + 2 * recipe.config.layers, "{} tensors", tensors.len());
    for at in inside.chain([sum]) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        refused(&flipped, &format!("a bit of byte {at}"));
    }
    let model = safetensors::serialize([("x", tensors.tensor("tokens").expect("tokens"))], None).expect("a file");
    refused(&model, "a file of something else");

    std::fs::write(&path, &bytes).expect("the file");
    let foreign = |mut sequence: Sequence, case: &str| {
        let error = sequence.restore_caches(&path).expect_err(case);
        assert!(matches!(error, Error::OtherCaches { .. }), "{case}: {error}");
    };
    foreign(decoder(&other, &draft(&other), Method::Pard, 4), "another target");
    foreign(decoder(&target, &draft(&target), Method::Pard, 4), "another draft");
    foreign(decoder(&target, &draft(&other), Method::Ar, 0), "no draft");
    let wide = upload(&recipe, &plan(CacheFormat::F32));
    foreign(decoder(&wide, &draft(&other), Method::Pard, 4), "another plan");
    let options = SequenceOptions::default().method(Method::Pard).drafts(DraftLength::Fixed(4)).context(64);
    let mut short = Sequence::new(&target, Some(&draft(&other)), options).expect("a sequence");
    assert!(matches!(short.restore_caches(&path), Err(Error::ContextFull { .. })));
    assert!(matches!(short.restore_caches(&folder.path().join("nothing")), Err(Error::Io { .. })));

    assert_eq!((sequence.tokens().to_vec(), sequence.session()), before);
    let mut apart = decoder(&target, &draft(&other), Method::Pard, 4);
    apart.start(&before.0).expect("start");
    assert_eq!(rounds(&mut sequence, 2), rounds(&mut apart, 2));
}
