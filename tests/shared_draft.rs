//! Drafts whose embeddings and head are their target's: they propose what the same draft with copies of its own would,
//! take no memory twice, and write the target's text.

use std::path::Path;
use std::sync::Arc;

use pard::checkpoint::{DraftFiles, ModelFiles};
use pard::decoding::{Draft, MAX_DRAFTS, Method};
use pard::low_level::forward::ModelRunner;
use pard::low_level::forward::tied_draft::{MASK_EMBEDDING, VOCABULARY};
use pard::low_level::gpu::{Buffer, CacheFormat};
use pard::low_level::inspect::Inspect;
use pard::low_level::ops::{Matrix, Phase, WeightFormat};
use pard::model::Weights;
use pard::{Error, Result};
use serde_json::{Value, json};

use crate::decoding::{CONTEXT, decode, decoder, lengths};
use crate::ops::same_bits;
use crate::oracle::argmax::argmax;
use crate::support::gpu::{cooperative_plan, device, plan, upload};
use crate::support::random::Random;
use crate::support::shared_draft::SharedDraft;
use crate::support::tiny_model::{Recipe, write_json};

fn draft(model: &Arc<Weights>) -> Draft {
    Draft::from_weights("draft", model.clone(), model.config().mask_token)
}

/// A target of each family, tied and not, and drafts of other layers: with all of the head and with a third of it, the
/// mask one of the target's tokens and one that it does not have.
fn pairs(seed: u64) -> Vec<(Recipe, SharedDraft)> {
    let mut pairs = Vec::new();
    for target in Recipe::each_family(seed) {
        let mut layers = Recipe { seed: seed + 1, ..target.clone() };
        layers.config.layers = 2;
        let vocab = target.config.vocab_size;
        let reduced = Some(SharedDraft::third(vocab));
        pairs.push((target.clone(), SharedDraft::new(&layers, 5, None)));
        pairs.push((target, SharedDraft::new(&layers, vocab as u32 + 3, reduced)));
    }
    pairs
}

/// The logits of `drafts` rows, the last of `known` and masks, and the choices among ids below `limit`.
fn proposed(model: &Arc<Weights>, known: &[u32], drafts: usize, mask: u32, limit: usize) -> (Vec<f32>, Vec<u32>) {
    let choices = Buffer::storage(device(), "choices", 128).expect("a small buffer");
    let sequence = ModelRunner::new(model, CONTEXT + 2 * MAX_DRAFTS, limit, &choices).expect("a sequence");
    let (&last, before) = known.split_last().expect("a known token");
    sequence.prefill(before, 0).expect("prefill");
    let mut rows = vec![last];
    rows.resize(drafts, mask);
    sequence.run(Phase::Decode, &rows, before.len(), drafts).expect("rows");
    (sequence.logits(drafts).expect("logits"), choices.read(device(), 0, drafts).expect("choices"))
}

/// The logits of the tokens `vocabulary` out of rows of `width`.
fn restricted(logits: &[f32], width: usize, vocabulary: &[u32]) -> Vec<f32> {
    logits.chunks(width).flat_map(|row| vocabulary.iter().map(|&id| row[id as usize])).collect()
}

#[test]
fn it_computes_the_bits_of_the_same_draft_with_copies_of_its_own() {
    let plans = [Some(plan(CacheFormat::F16)), cooperative_plan("shared embeddings by cooperative products")];
    for plan in plans.into_iter().flatten() {
        for (recipe, files) in pairs(3) {
            let (vocab, mask) = (recipe.config.vocab_size, files.config.mask_token.expect("a mask"));
            let target = upload(&recipe, &plan);
            let shared = files.upload(&target, &plan).expect("a draft");
            let whole = files.upload_whole(&recipe, &plan);
            let all: Vec<u32> = (0..vocab as u32).collect();
            let vocabulary = files.vocabulary.as_ref().unwrap_or(&all);
            let known = Random::new(8).indices(20, vocab);
            for drafts in [1, 6, 16] {
                let context = format!("{:?}, {} rows of the head, {drafts}", recipe.config.family, vocabulary.len());
                let (expected, _) = proposed(&whole, &known, drafts, mask, vocab);
                let expected = restricted(&expected, whole.config().vocab_size, vocabulary);
                for limit in [vocab, vocab / 2] {
                    let (logits, choices) = proposed(&shared, &known, drafts, mask, limit);
                    same_bits(&context, &logits, &expected);
                    // The vocabulary ascends: those below the limit come first.
                    let below: Vec<u32> =
                        (0..).zip(vocabulary).filter(|(_, id)| (**id as usize) < limit).map(|(at, _)| at).collect();
                    let best = argmax(&restricted(&expected, vocabulary.len(), &below), below.len());
                    let best: Vec<u32> = best.into_iter().map(|index| vocabulary[index as usize]).collect();
                    assert_eq!(choices, best, "{context}, ids below {limit}");
                }
            }
        }
    }
}

#[test]
fn it_proposes_what_the_same_draft_with_copies_of_its_own_proposes() {
    let plan = plan(CacheFormat::F16);
    for (recipe, files) in pairs(13).into_iter().filter(|(_, files)| files.vocabulary.is_none()) {
        let target = upload(&recipe, &plan);
        let shared = draft(&files.upload(&target, &plan).expect("a draft"));
        let whole = Draft::from_weights("draft", files.upload_whole(&recipe, &plan), shared.mask);
        let prompt = Random::new(9).indices(20, recipe.config.vocab_size);
        for method in [Method::Vsd, Method::Pard] {
            let mut decoders = [&shared, &whole].map(|draft| decoder(&target, draft, method, 6));
            for decoder in &mut decoders {
                decoder.start(&prompt).expect("start");
            }
            for _ in 0..6 {
                let [one, other] = decoders.each_mut().map(|decoder| {
                    let committed = decoder.round().expect("round").to_vec();
                    (committed, decoder.proposals().expect("proposals"))
                });
                assert_eq!(one, other, "{:?}, {}", recipe.config.family, method.name());
            }
        }
    }
}

#[test]
fn every_method_writes_the_same_tokens_with_it() {
    let plan = plan(CacheFormat::F16);
    for (recipe, files) in pairs(23) {
        let target = upload(&recipe, &plan);
        let draft = draft(&files.upload(&target, &plan).expect("a draft"));
        let prompt = Random::new(2).indices(21, recipe.config.vocab_size);
        let alone = decode(&mut decoder(&target, &draft, Method::Ar, 0), &prompt, 40);
        for drafts in lengths() {
            for method in [Method::Vsd, Method::Pard] {
                let tokens = decode(&mut decoder(&target, &draft, method, drafts), &prompt, 40);
                assert_eq!(tokens, alone, "{:?}, {} with K = {drafts}", recipe.config.family, method.name());
            }
        }
    }
}

#[test]
fn one_with_the_layers_of_its_target_is_accepted_whole() {
    let plan = plan(CacheFormat::F16);
    for recipe in Recipe::each_family(33) {
        let target = upload(&recipe, &plan);
        let files = SharedDraft::new(&recipe, recipe.config.vocab_size as u32, None);
        let draft = draft(&files.upload(&target, &plan).expect("a draft"));
        let mut decoder = decoder(&target, &draft, Method::Vsd, 5);
        decoder.start(&[1, 2, 3]).expect("start");
        for _ in 0..4 {
            assert_eq!(decoder.round().expect("round").len(), 6, "{:?}", recipe.config.family);
        }
    }
}

#[test]
fn what_it_shares_takes_no_memory() {
    let plan = plan(CacheFormat::F16);
    for (recipe, files) in pairs(43) {
        let target = upload(&recipe, &plan);
        let before = target.bytes();
        let shared = files.upload(&target, &plan).expect("a draft");
        assert_eq!(target.bytes(), before);
        // An embedding and a head less than the whole model, whose widths are padded.
        let whole = files.upload_whole(&recipe, &plan);
        let hidden = recipe.config.hidden_size;
        let rows = |count: usize| Matrix::expected_bytes(&plan, WeightFormat::Bf16, [count, hidden]);
        let ends = 2 * rows(whole.config().vocab_size);
        let head = files.vocabulary.as_ref().map_or(0, |ids| rows(ids.len()));
        assert_eq!(shared.bytes(), whole.bytes() - ends + head, "{:?}", recipe.config.family);
        let unpadded = files.vocabulary.as_ref().map_or(0, |ids| (ids.len() * hidden * 2) as u64);
        let layers: usize = files.tensors.values().filter(|t| t.shape.len() == 2).map(|t| 2 * t.values.len()).sum();
        assert_eq!(files.expected_bytes().expect("whole files"), layers as u64 + unpadded);
    }
}

fn target_and_draft() -> (Arc<Weights>, SharedDraft) {
    let recipe = Recipe::llama(53);
    (upload(&recipe, &plan(CacheFormat::F16)), SharedDraft::new(&recipe, 5, None))
}

#[test]
fn what_does_not_fit_the_target_is_refused_with_a_reason() {
    let (target, good) = target_and_draft();
    let plan = plan(CacheFormat::F16);
    let refused = |change: &dyn Fn(&mut SharedDraft)| {
        let mut files = SharedDraft { config: good.config.clone(), tensors: good.tensors.clone(), vocabulary: None };
        change(&mut files);
        files.upload(&target, &plan).map(drop).expect_err("it does not fit")
    };
    let narrow = SharedDraft::new(&Recipe::qwen2(1), 5, None);
    let error = narrow.upload(&target, &plan).map(drop).expect_err("another hidden size");
    assert!(matches!(&error, Error::Config { field, .. } if field == "hidden_size"), "{error}");
    let error = refused(&|files| files.config.vocab_size += 1);
    assert!(matches!(&error, Error::Config { field, .. } if field == "vocab_size"), "{error}");
    let error = refused(&|files| files.config.mask_token = None);
    assert!(matches!(&error, Error::Config { field, .. } if field == "pard_token"), "{error}");
    let error = refused(&|files| drop(files.tensors.remove(MASK_EMBEDDING)));
    assert!(matches!(&error, Error::MissingTensor { name, .. } if name == MASK_EMBEDDING), "{error}");
    for (ids, reason) in [
        (vec![], "names no token"),
        (vec![3, 3], "3 follows 3"),
        (vec![4, 2], "2 follows 4"),
        (vec![4, 307], "307 is outside the vocabulary of 307"),
        (vec![1, u32::MAX], "outside"),
    ] {
        let error = refused(&|files| files.vocabulary = Some(ids.clone())).to_string();
        assert!(error.contains(VOCABULARY) && error.contains(reason), "{error}");
    }
    let lanes = pard::low_level::gpu::KernelPlan { lanes: 2 * plan.lanes, ..plan };
    assert!(matches!(
        good.upload(&target, &lanes).map(drop),
        Err(Error::Option { option: pard::error::OptionName::Products, .. })
    ));
}

fn written(files: &SharedDraft) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    files.write(folder.path());
    folder
}

#[test]
fn its_folder_opens_beside_a_target_only() {
    let layers = Recipe::qwen3(63);
    let files = SharedDraft::new(&layers, 311, Some(SharedDraft::third(311)));
    let folder = written(&files);
    let error = ModelFiles::open(folder.path()).map(drop).expect_err("no target");
    assert!(matches!(error, Error::NoEmbeddings { .. }) && error.to_string().contains("needs its target's"), "{error}");

    let target_folder = tempfile::tempdir().expect("a folder");
    layers.write(target_folder.path());
    let target = ModelFiles::open(target_folder.path()).expect("the target");
    let opened = DraftFiles::open(folder.path()).expect("opening");
    assert!(opened.text.is_none() && opened.config == files.config);
    assert_eq!(opened.checkpoint.read_ids(VOCABULARY).expect("ids"), files.vocabulary);
    let name = opened.name.clone();
    let opened = opened.beside(&target.text);
    assert_eq!((opened.name(), &opened.text.stop_tokens), (name.as_str(), &target.text.stop_tokens));
    let tokenizer = &target.text.tokenizer;
    let mask = |id| Draft::mask(&opened.config, id);
    assert_eq!(Draft::check(&opened.text.tokenizer, tokenizer, Some(311)).expect("its target's"), [""; 0]);
    assert_eq!(mask(None).expect("its own mask"), Some(311));
    assert!(matches!(mask(Some(312)), Err(Error::TokenRange { id: 312, .. })));
    // With a tokenizer of its own it uses that.
    crate::support::tiny_tokenizer::write(folder.path());
    assert!(DraftFiles::open(folder.path()).expect("opening").text.is_some());
    // A whole model opens as a draft too.
    assert!(DraftFiles::open(target_folder.path()).expect("opening").text.is_some());
}

#[test]
fn faults_of_its_folder_are_named() {
    let folder = written(&SharedDraft::new(&Recipe::llama(73), 5, None));
    let read = |name: &str| -> Result<Option<Vec<u32>>> { DraftFiles::open(folder.path())?.checkpoint.read_ids(name) };
    assert_eq!(read(VOCABULARY).expect("none"), None);
    assert!(matches!(read(MASK_EMBEDDING), Err(Error::TensorType { supported, .. }) if supported == "I32, U32"));
    let config = folder.path().join("config.json");
    let text = std::fs::read(&config).expect("reading");
    for (key, value) in [("shared_embeddings", json!("yes")), ("pard_token", Value::Null)] {
        let mut json: Value = serde_json::from_slice(&text).expect("JSON");
        json[key] = value;
        write_json(&config, &json);
        let error = DraftFiles::open(folder.path()).map(drop).expect_err("a fault");
        assert!(matches!(&error, Error::Config { field, path, .. } if field == key && *path == *config), "{error}");
    }
    let missing = DraftFiles::open(Path::new("no such folder")).map(drop);
    assert!(missing.is_err());
}
