//! The rounds on the device: AR, VSD and PARD write the same tokens, propose what the method says, and keep their
//! caches in step. Small models of every family; real ones are in `real_model`.

use std::sync::Arc;

use pard::Error;
use pard::checkpoint::config::Config;
use pard::decoding::{
    Costs, Draft, DraftLength, MAX_DRAFTS, Method, Sequence, SequenceOptions, Speculation, Statistics,
};
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{AdapterQuery, Buffer, CacheFormat, Device};
use pard::low_level::inspect::Inspect;
use pard::low_level::ops::{Phase, WeightFormat};
use pard::model::{PassCost, WeightDtype, Weights};

use crate::ops::integer::INTEGER_PLANS;
use crate::oracle::argmax::argmax;
use crate::support::gpu::{cooperative_plan, device, plan, sweep, upload};
use crate::support::memory::Memory;
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

pub const CONTEXT: usize = 128;
const MASK: u32 = 5;

pub fn draft(model: &Arc<Weights>) -> Draft {
    Draft::from_weights("draft", model.clone(), Some(MASK))
}

fn options(method: Method, drafts: usize, context: usize) -> SequenceOptions {
    SequenceOptions::default().method(method).drafts(DraftLength::Fixed(drafts)).context(context)
}

pub fn decoder(target: &Arc<Weights>, draft: &Draft, method: Method, drafts: usize) -> Sequence {
    let options = options(method, drafts, CONTEXT);
    Sequence::new(target, Some(draft), options).expect("a decoder")
}

/// Decodes at least `count` tokens and returns the first `count`.
pub fn decode(decoder: &mut Sequence, prompt: &[u32], count: usize) -> Vec<u32> {
    decoder.start(prompt).expect("start");
    while decoder.tokens().len() < prompt.len() + count {
        decoder.round().expect("round");
    }
    decoder.tokens()[prompt.len()..prompt.len() + count].to_vec()
}

/// K in turns.
pub fn lengths() -> Vec<usize> {
    if sweep() { (1..=MAX_DRAFTS).collect() } else { vec![1, 2, 5, 8, 16] }
}

#[test]
fn every_method_writes_the_same_tokens() {
    for recipe in Recipe::each_family(3) {
        methods_agree(&recipe, CacheFormat::F16, &lengths());
    }
}

/// Rows of a pass that take experts of their own.
#[test]
fn every_method_writes_the_same_tokens_by_experts() {
    methods_agree(&Recipe::qwen3_moe(3), CacheFormat::F16, &lengths());
    methods_agree(&Recipe::partly_mixed(3), CacheFormat::Q8_0, if sweep() { &[1, 2, 3, 5, 8, 16] } else { &[5] });
}

/// Windows that are shorter than the text, in all layers and in some.
#[test]
fn every_method_writes_the_same_tokens_within_windows() {
    for recipe in [Recipe::mistral(3), Recipe::partly_windowed(3)] {
        methods_agree(&recipe, CacheFormat::F16, if sweep() { &[1, 2, 3, 5, 8, 16] } else { &[1, 5, 16] });
    }
}

#[test]
fn every_method_writes_the_same_tokens_with_an_8_bit_cache() {
    for recipe in Recipe::each_family(3).into_iter().chain([Recipe::partly_windowed(3)]) {
        methods_agree(&recipe, CacheFormat::Q8_0, if sweep() { &[1, 2, 3, 5, 8, 16] } else { &[1, 5, 16] });
    }
}

/// AR, VSD and PARD, by a draft that knows everything and one that knows nothing, for each K in `lengths`; waiting for
/// each round and running ahead.
fn methods_agree(recipe: &Recipe, cache: CacheFormat, lengths: &[usize]) {
    let vocab = recipe.config.vocab_size;
    let target = upload(recipe, &plan(cache));
    let stranger = upload(&Recipe { seed: 4, ..recipe.clone() }, &plan(cache));
    let prompts = [Random::new(1).indices(1, vocab), Random::new(2).indices(37, vocab)];
    for prompt in prompts {
        let alone = decode(&mut decoder(&target, &draft(&target), Method::Ar, 0), &prompt, 40);
        for &drafts in lengths {
            for method in [Method::Vsd, Method::Pard] {
                for (name, model) in [("itself", &target), ("a stranger", &stranger)] {
                    let context = format!(
                        "{:?}, {cache:?}, {} with K = {drafts}, drafted by {name}, prompt of {}",
                        recipe.config.family,
                        method.name(),
                        prompt.len()
                    );
                    let tokens = decode(&mut decoder(&target, &draft(model), method, drafts), &prompt, 40);
                    assert_eq!(tokens, alone, "{context}");
                }
            }
        }
        for method in [Method::Ar, Method::Vsd, Method::Pard] {
            let drafts = if method == Method::Ar { 0 } else { 5 };
            let ahead = options(method, drafts, CONTEXT).run_ahead(Some(true));
            let mut ahead = Sequence::new(&target, Some(&draft(&stranger)), ahead).expect("a decoder");
            assert_eq!(decode(&mut ahead, &prompt, 40), alone, "{:?}, {} ahead", recipe.config.family, method.name());
        }
    }
}

/// Cooperative products take another kernel for each 8 or 16 rows more.
#[test]
fn every_method_writes_the_same_tokens_by_cooperative_products() {
    let Some(plan) = cooperative_plan("AR, VSD and PARD by cooperative products") else { return };
    let recipe = Recipe::qwen3(3);
    let target = upload(&recipe, &plan);
    let stranger = upload(&Recipe { seed: 4, ..recipe.clone() }, &plan);
    let prompt = Random::new(2).indices(37, recipe.config.vocab_size);
    let alone = decode(&mut decoder(&target, &draft(&target), Method::Ar, 0), &prompt, 40);
    for drafts in if sweep() { lengths() } else { vec![1, 5] } {
        for method in [Method::Vsd, Method::Pard] {
            for (name, model) in [("itself", &target), ("a stranger", &stranger)] {
                let tokens = decode(&mut decoder(&target, &draft(model), method, drafts), &prompt, 40);
                assert_eq!(tokens, alone, "{} with K = {drafts}, drafted by {name}", method.name());
            }
        }
    }
}

/// Quantised weights by rows of integers, of 16 bits and of 8.
#[test]
fn every_method_writes_the_same_tokens_by_integer_products() {
    let plain = Recipe::qwen3(3);
    // Blocks have 32 weights.
    let config = Config { feed_forward_size: 160, ..plain.config.clone() };
    let recipe = Recipe { config, ..plain };
    // Made for GPUs: a software driver takes long for each number of rows, and gigabytes for all.
    let (plans, lengths) =
        if sweep() { (&INTEGER_PLANS[..], lengths()) } else { (&INTEGER_PLANS[..2], vec![1, 5, 16]) };
    for (plan, layers) in
        plans.iter().zip([WeightFormat::Q8_0, WeightFormat::Q4_1, WeightFormat::Q5_0, WeightFormat::Q4_1])
    {
        let upload = |seed: u64| {
            let memory = Memory::new(Recipe { seed, ..recipe.clone() }.tensors());
            let choice = WeightDtype::Quantised { layers, ends: WeightFormat::Q8_0 };
            let model = Weights::upload(device(), plan, &recipe.config, &memory, choice, &|_, _| ());
            Arc::new(model.expect("upload"))
        };
        let (target, stranger) = (upload(3), upload(4));
        let prompt = Random::new(2).indices(37, recipe.config.vocab_size);
        let alone = decode(&mut decoder(&target, &draft(&target), Method::Ar, 0), &prompt, 40);
        for &drafts in &lengths {
            for method in [Method::Vsd, Method::Pard] {
                for (name, model) in [("itself", &target), ("a stranger", &stranger)] {
                    let tokens = decode(&mut decoder(&target, &draft(model), method, drafts), &prompt, 40);
                    assert_eq!(tokens, alone, "{layers:?}, {plan}, {} with K = {drafts}, by {name}", method.name());
                }
            }
        }
    }
}

/// Rounds that run ahead know bounds only, and K may change from round to round; neither changes a token.
#[test]
fn running_ahead_and_choosing_k_write_the_same_tokens() {
    // Rows cost nothing, little, and as much as a pass: K is the longest, something between, and 0.
    let flat = PassCost::from_points(&[(1, 1.0), (32, 1.01)]);
    let sloped = PassCost::from_points(&[(1, 1.0), (32, 4.0)]);
    let steep = PassCost::from_points(&[(1, 1.0), (32, 32.0)]);
    for recipe in Recipe::each_family(7) {
        let target = upload(&recipe, &plan(CacheFormat::F16));
        let stranger = upload(&Recipe { seed: 8, ..recipe.clone() }, &plan(CacheFormat::F16));
        let prompt = Random::new(9).indices(21, recipe.config.vocab_size);
        let alone = decode(&mut decoder(&target, &draft(&target), Method::Ar, 0), &prompt, 60);
        for run_ahead in [false, true] {
            let ahead = |method, drafts| {
                let run_ahead = Some(run_ahead);
                SequenceOptions::default().method(method).drafts(drafts).context(CONTEXT).run_ahead(run_ahead)
            };
            let plain = Sequence::new(&target, None, ahead(Method::Ar, DraftLength::Fixed(0)));
            assert_eq!(decode(&mut plain.expect("a decoder"), &prompt, 60), alone, "AR, ahead: {run_ahead}");
            for method in [Method::Vsd, Method::Pard] {
                for model in [&target, &stranger] {
                    let new =
                        |drafts| Sequence::new(&target, Some(&draft(model)), ahead(method, drafts)).expect("a decoder");
                    for drafts in [1, 3, 16] {
                        let tokens = decode(&mut new(DraftLength::Fixed(drafts)), &prompt, 60);
                        assert_eq!(tokens, alone, "{}, K = {drafts}, ahead: {run_ahead}", method.name());
                    }
                    for cost in [&flat, &sloped, &steep] {
                        let mut decoder = new(DraftLength::Auto);
                        let cheap = PassCost::from_points(&[(1, 0.1), (32, 0.2)]);
                        decoder.set_costs(Costs { target: cost.clone(), draft: cheap });
                        let tokens = decode(&mut decoder, &prompt, 60);
                        assert_eq!(tokens, alone, "{}, K chosen, ahead: {run_ahead}", method.name());
                        // Twice, so that a round left in flight is seen to be waited for.
                        assert_eq!(decode(&mut decoder, &prompt, 60), alone);
                    }
                }
            }
        }
    }
}

/// Three turns of a conversation: each prompt is all that was said before and something new.
fn converse(decoder: &mut Sequence, vocab: usize, resumes: bool) -> Vec<Vec<u32>> {
    const ANSWER: usize = 13;
    let mut said: Vec<u32> = Vec::new();
    let turn = |turn: u64| {
        let reused = if resumes { said.len().saturating_sub(1) } else { 0 };
        said.extend(Random::new(40 + turn).indices(9, vocab));
        let begun = if resumes { decoder.resume(&said) } else { decoder.start(&said) };
        begun.expect("the prompt is read");
        let statistics = decoder.statistics();
        assert_eq!((statistics.prompt_tokens, statistics.reused_tokens), (said.len(), reused), "turn {turn}");
        while decoder.tokens().len() < said.len() + ANSWER {
            decoder.round().expect("round");
        }
        let answer = decoder.tokens()[said.len()..said.len() + ANSWER].to_vec();
        said.extend(&answer);
        decoder.truncate(said.len());
        assert_eq!(decoder.tokens(), said);
        answer
    };
    (0..3).map(turn).collect()
}

#[test]
fn a_resumed_decoder_writes_what_one_that_begins_anew_does() {
    for recipe in Recipe::each_family(31) {
        let vocab = recipe.config.vocab_size;
        let target = upload(&recipe, &plan(CacheFormat::F32));
        let stranger = upload(&Recipe { seed: 32, ..recipe.clone() }, &plan(CacheFormat::F32));
        let anew = converse(&mut decoder(&target, &draft(&target), Method::Ar, 0), vocab, false);
        for run_ahead in [false, true] {
            for (method, drafts) in [(Method::Ar, 0), (Method::Vsd, 1), (Method::Vsd, 4), (Method::Pard, 4)] {
                for model in [&target, &stranger] {
                    let options = options(method, drafts, CONTEXT).run_ahead(Some(run_ahead));
                    let mut decoder = Sequence::new(&target, Some(&draft(model)), options).expect("a decoder");
                    let context = format!("{:?}, {}, K = {drafts}", recipe.config.family, method.name());
                    assert_eq!(converse(&mut decoder, vocab, true), anew, "{context}");
                    // The draft's caches too: one that knows what was said proposes what it will accept.
                    if method == Method::Vsd && Arc::ptr_eq(model, &target) {
                        assert_eq!(decoder.statistics().accepted_per_position(), vec![1.0; drafts], "{context}");
                    }
                }
            }
        }
    }
}

/// Counted by the device itself, on one that no other test uses.
#[test]
fn a_resumed_decoder_reads_only_what_is_new() {
    let device = Device::open(&AdapterQuery::default()).expect("an adapter");
    let recipe = Recipe::llama(33);
    let memory = Memory::new(recipe.tensors());
    let model =
        Weights::upload(&device, &device.default_plan(), &recipe.config, &memory, WeightDtype::Compact, &|_, _| ());
    let target = Arc::new(model.expect("upload"));
    let mut decoder = decoder(&target, &draft(&target), Method::Vsd, 2);
    let mut said = Random::new(34).indices(50, recipe.config.vocab_size);
    decode(&mut decoder, &said, 8);
    said = [&decoder.tokens()[..58], &[1, 2, 3, 4]].concat();
    device.start_profile(false).expect("timestamps");
    decoder.resume(&said).expect("the prompt is read");
    let profile = device.end_profile().expect("the profile");
    let read: Vec<u32> = profile
        .submits
        .iter()
        .flatten()
        .filter(|dispatch| dispatch.kernel == "embedding" && dispatch.section == "prefill")
        .map(|dispatch| dispatch.work.rows)
        .collect();
    // The target lacks the newest three but the last, which is a row of the first round; a VSD draft also lacks the last
    // proposal that it made itself.
    assert_eq!(read, [3, 4], "the rows that target and draft read");
}

#[test]
fn any_prompt_can_be_resumed_with() {
    let recipe = Recipe::qwen3(35);
    let vocab = recipe.config.vocab_size;
    let target = upload(&recipe, &plan(CacheFormat::F32));
    let options = options(Method::Vsd, 3, 1000);
    let new = || Sequence::new(&target, Some(&draft(&target)), options.clone()).expect("a decoder");
    let first = Random::new(36).indices(40, vocab);
    let mut resumed = new();
    decode(&mut resumed, &first, 20);
    let written = resumed.tokens().to_vec();
    let edited = [&first[..25], &[7, 8, 9], &first[25..]].concat();
    let stranger = Random::new(37).indices(30, vocab);
    for (prompt, reused) in
        [(&edited[..], 25), (&first[..12], 11), (&first[..1], 0), (&stranger[..], 0), (&written[..], 0)]
    {
        let known = resumed.tokens().iter().zip(prompt).take_while(|(one, other)| one == other).count();
        resumed.resume(prompt).expect("the prompt is read");
        assert_eq!(resumed.statistics().reused_tokens, reused.min(known), "a prompt of {}", prompt.len());
        let count = prompt.len() + 15;
        while resumed.tokens().len() < count {
            resumed.round().expect("round");
        }
        assert_eq!(
            resumed.tokens()[prompt.len()..count],
            decode(&mut new(), prompt, 15),
            "a prompt of {}",
            prompt.len()
        );
    }
    // A prompt that is refused changes nothing; one whose reading was broken off is gone on with.
    let before = resumed.tokens().to_vec();
    assert!(matches!(resumed.resume(&[]), Err(Error::EmptyPrompt)));
    assert!(matches!(resumed.resume(&vec![1; 1000]), Err(Error::ContextFull { .. })));
    assert_eq!(resumed.tokens(), before);
    let long = Random::new(38).indices(700, vocab);
    resumed.resume_while(&long, &|| false).expect("the beginning is read");
    resumed.resume(&long).expect("the rest is read");
    let reused = resumed.statistics().reused_tokens;
    assert!((1..699).contains(&reused), "{reused} of 700 tokens were read before");
    while resumed.tokens().len() < 715 {
        resumed.round().expect("round");
    }
    assert_eq!(resumed.tokens()[700..715], decode(&mut new(), &long, 15));
}

#[test]
fn k_follows_cost_and_acceptance() {
    let recipe = Recipe::llama(13);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let stranger = upload(&Recipe { seed: 14, ..recipe }, &plan(CacheFormat::F16));
    let prompt = [1, 2, 3];
    let new = |model, target_cost: &PassCost, draft_cost: &PassCost| {
        let options = SequenceOptions::default().method(Method::Vsd).context(CONTEXT);
        let mut decoder = Sequence::new(&target, Some(&draft(model)), options).expect("a decoder");
        decoder.set_costs(Costs { target: target_cost.clone(), draft: draft_cost.clone() });
        decode(&mut decoder, &prompt, 80);
        (decoder.statistics().clone(), decoder.speculation().expect("K is chosen"))
    };
    let flat = PassCost::from_points(&[(1, 1.0), (32, 1.1)]);
    let cheap = PassCost::from_points(&[(1, 0.01), (32, 0.02)]);
    let steep = PassCost::from_points(&[(1, 1.0), (32, 32.0)]);

    let (statistics, speculation) = new(&target, &flat, &cheap);
    assert_eq!(speculation, Speculation::Pays);
    assert!(statistics.mean_drafts() > 9.0, "perfect, cheap proposals: K = {}", statistics.mean_drafts());
    let (statistics, speculation) = new(&target, &steep, &cheap);
    assert_eq!((speculation, statistics.mean_drafts()), (Speculation::TooSlow, 0.0), "every row costs a pass");
    let (statistics, speculation) = new(&target, &flat, &flat);
    assert_eq!((speculation, statistics.mean_drafts()), (Speculation::TooSlow, 0.0), "the draft costs what it saves");
    // A stranger's proposals are refused: soon most rounds go without, and some try again.
    let half = PassCost::from_points(&[(1, 0.5), (32, 0.6)]);
    let (statistics, _) = new(&stranger, &flat, &half);
    let plain = statistics.plain_rounds() as f64 / statistics.rounds as f64;
    assert!(plain > 0.6 && plain < 1.0, "{plain} of the rounds went without proposals");
    // One that is slow to read what was written meanwhile is not tried again so soon.
    let slow_reader = PassCost::from_points(&[(1, 0.5), (2, 0.5), (32, 6.4)]);
    let (slow, _) = new(&stranger, &flat, &slow_reader);
    let tried = |statistics: &Statistics| statistics.rounds - statistics.plain_rounds();
    assert!((1..tried(&statistics)).contains(&tried(&slow)), "{} and {} tries", tried(&slow), tried(&statistics));
}

#[test]
fn a_perfect_draft_is_accepted_whole() {
    let recipe = Recipe::qwen3(11);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    for drafts in lengths() {
        let mut decoder = decoder(&target, &draft(&target), Method::Vsd, drafts);
        decoder.start(&[1, 2, 3]).expect("start");
        for _ in 0..4 {
            assert_eq!(decoder.round().expect("round").len(), drafts + 1, "K = {drafts}");
        }
        assert_eq!(decoder.statistics().accepted_per_position(), vec![1.0; drafts]);
    }
}

/// An off-by-one in the draft's rows keeps the text right and only kills the acceptance, so the proposals themselves are
/// held against a draft that is fed by hand: all known tokens and K - 1 masks, in caches of its own.
#[test]
fn a_parallel_draft_proposes_what_masks_after_the_known_tokens_predict() {
    for recipe in Recipe::each_family(21) {
        let vocab = recipe.config.vocab_size;
        let model = upload(&recipe, &plan(CacheFormat::F32));
        let prompt = Random::new(8).indices(20, vocab);
        for drafts in [1, 4, 16] {
            let mut decoder = decoder(&model, &draft(&model), Method::Pard, drafts);
            decoder.start(&prompt).expect("start");
            for round in 0..6 {
                let known = decoder.tokens().to_vec();
                decoder.round().expect("round");
                let expected = propose_by_hand(&model, &known, drafts);
                assert_eq!(
                    decoder.proposals().expect("proposals"),
                    expected,
                    "{:?}, K = {drafts}, round {round}",
                    recipe.config.family
                );
            }
        }
    }
}

fn propose_by_hand(model: &Arc<Weights>, known: &[u32], drafts: usize) -> Vec<u32> {
    let choices = Buffer::storage(device(), "choices", 128).expect("a small buffer");
    let vocab = model.config().vocab_size;
    let sequence = ModelRunner::new(model, CONTEXT + 2 * MAX_DRAFTS, vocab, &choices).expect("a sequence");
    let (&last, before) = known.split_last().expect("a known token");
    sequence.prefill(before, 0).expect("prefill");
    let mut rows = vec![last];
    rows.resize(drafts, MASK);
    sequence.run(Phase::Decode, &rows, before.len(), drafts).expect("rows");
    argmax(&sequence.logits(drafts).expect("logits"), vocab)
}

#[test]
fn caches_keep_step_with_the_tokens() {
    let recipe = Recipe::llama(5);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let stranger = upload(&Recipe { seed: 6, ..recipe.clone() }, &plan(CacheFormat::F16));
    for model in [&target, &stranger] {
        for method in [Method::Vsd, Method::Pard] {
            let drafts = 4;
            let mut decoder = decoder(&target, &draft(model), method, drafts);
            decoder.start(&[9, 8, 7, 6]).expect("start");
            for _ in 0..8 {
                let before = decoder.tokens().len();
                let committed = decoder.round().expect("round").len();
                let session = decoder.session();
                assert_eq!(session.tokens as usize, before + committed);
                assert_eq!(session.target_rows as usize, before + committed - 1);
                let draft_rows = match method {
                    // All that was known when it drafted; its masks are forgotten.
                    Method::Pard => before,
                    // d1 .. d(K - 1) as well, as far as they were committed.
                    _ => (before + drafts - 1).min(before + committed - 1),
                };
                assert_eq!(session.draft_rows as usize, draft_rows, "{}", method.name());
                // The host follows by its own arithmetic; the device must have come to the same.
                assert_eq!(decoder.device_session().expect("session"), session);
            }
        }
    }
}

#[test]
fn vocabularies_padded_to_different_lengths_are_compared_over_the_shared_part() {
    let narrow = Recipe::qwen2(31);
    let mut wide = narrow.clone();
    wide.config.vocab_size += 24;
    let [narrow, wide] = [&narrow, &wide].map(|recipe| upload(recipe, &plan(CacheFormat::F16)));
    for (target, other) in [(&narrow, &wide), (&wide, &narrow)] {
        let alone = decode(&mut decoder(target, &draft(target), Method::Ar, 0), &[3, 1, 4], 40);
        for method in [Method::Vsd, Method::Pard] {
            assert_eq!(decode(&mut decoder(target, &draft(other), method, 6), &[3, 1, 4], 40), alone);
        }
    }
}

#[test]
fn a_full_context_ends_the_decoding_and_nothing_else() {
    let target = upload(&Recipe::llama(41), &plan(CacheFormat::F16));
    for (method, drafts) in [(Method::Ar, 0), (Method::Vsd, 16), (Method::Pard, 16)] {
        let options = options(method, drafts, 20);
        let mut decoder = Sequence::new(&target, Some(&draft(&target)), options).expect("a decoder");
        decoder.start(&[1; 19]).expect("one token still fits");
        decoder.round().expect("a round that may run past the context");
        assert!(matches!(decoder.round(), Err(Error::ContextFull { context: 20, .. })));
        assert!(matches!(decoder.start(&[1; 20]), Err(Error::ContextFull { tokens: 20, context: 20 })));
        // It starts anew after any of these.
        let again = decode(&mut decoder, &[1; 4], 10);
        assert_eq!(decode(&mut decoder, &[1; 4], 10), again);
    }
}

#[test]
fn what_cannot_be_decoded_is_refused_with_a_reason() {
    let target = upload(&Recipe::llama(51), &plan(CacheFormat::F16));
    let new = |draft: Option<&Draft>, method, drafts| {
        Sequence::new(&target, draft, options(method, drafts, CONTEXT)).map(drop)
    };
    assert!(matches!(new(Some(&draft(&target)), Method::Pard, 17), Err(Error::Option { .. })));
    assert!(matches!(new(None, Method::Vsd, 4), Err(Error::Option { .. })));
    let maskless = Draft::from_weights("draft", target.clone(), None);
    assert!(matches!(new(Some(&maskless), Method::Pard, 4), Err(Error::NoMaskToken { .. })));
    assert!(new(Some(&maskless), Method::Vsd, 4).is_ok());
    assert!(new(None, Method::Pard, 0).is_ok(), "K = 0 is plain AR");

    let mut decoder = decoder(&target, &draft(&target), Method::Vsd, 4);
    assert!(matches!(decoder.round(), Err(Error::EmptyPrompt)));
    assert!(matches!(decoder.start(&[]), Err(Error::EmptyPrompt)));
    assert!(matches!(decoder.start(&[1, 9999]), Err(Error::TokenRange { id: 9999, .. })));
    assert!(matches!(decoder.start(&[9999, 1]), Err(Error::TokenRange { id: 9999, .. })));
}

#[test]
fn a_lost_device_is_an_error_that_names_it() {
    let lost = pard::low_level::gpu::Device::open(&Default::default()).expect("an adapter");
    let recipe = Recipe::llama(61);
    let memory = crate::support::memory::Memory::new(recipe.tensors());
    let plan = lost.default_plan();
    let model = Weights::upload(&lost, &plan, &recipe.config, &memory, Default::default(), &|_, _| ());
    let model = Arc::new(model.expect("upload"));
    let mut decoder = decoder(&model, &draft(&model), Method::Ar, 0);
    decoder.start(&[1, 2, 3]).expect("start");
    decoder.round().expect("round");
    lost.destroy();
    let error = decoder.round().expect_err("the device is gone").to_string();
    assert!(error.contains("was lost"), "{error}");
}
