//! Target and draft on two devices: the same tokens and the same proposals as on one. Both are the adapter under test,
//! opened twice, which share nothing.

use std::sync::{Arc, LazyLock};

use pard::Error;
use pard::decoding::{
    AcceptanceRule, Costs, Draft, DraftLength, Method, SamplingParams, Sequence, SequenceOptions, Speculation,
};
use pard::low_level::gpu::{AdapterQuery, CacheFormat, Device, is_same_adapter};
use pard::low_level::inspect::Inspect;
use pard::model::{PassCost, WeightDtype, Weights};

use crate::decoding::CONTEXT;
use crate::support::gpu::{device, plan, upload};
use crate::support::memory::Memory;
use crate::support::random::Random;
use crate::support::shared_draft::SharedDraft;
use crate::support::tiny_model::Recipe;

const MASK: u32 = 5;

fn open() -> Device {
    Device::open(&AdapterQuery::default()).expect("the adapter opens twice")
}

/// The draft's device.
fn elsewhere() -> &'static Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(open);
    &DEVICE
}

fn upload_on(device: &Device, recipe: &Recipe) -> Arc<Weights> {
    let (plan, files) = (plan(CacheFormat::F16), Memory::new(recipe.tensors()));
    let model = Weights::upload(device, &plan, &recipe.config, &files, WeightDtype::Compact, &|_, _| ());
    Arc::new(model.expect("upload"))
}

fn decoder(target: &Arc<Weights>, draft: &Arc<Weights>, options: SequenceOptions) -> Sequence {
    let draft = Draft::from_weights("draft", draft.clone(), Some(MASK));
    Sequence::new(target, Some(&draft), options).expect("a decoder")
}

fn options(method: Method, drafts: usize, sampling: &SamplingParams) -> SequenceOptions {
    let (drafts, sampling) = (DraftLength::Fixed(drafts), sampling.clone());
    // Rounds of one device would know less than those of two.
    SequenceOptions::default().method(method).drafts(drafts).context(CONTEXT).sampling(sampling).run_ahead(Some(false))
}

/// The tokens of `count` rounds, round by round, with what each proposed.
fn rounds(decoder: &mut Sequence, prompt: &[u32], count: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
    decoder.start(prompt).expect("start");
    let mut round = || {
        let tokens = decoder.round().expect("round").to_vec();
        (tokens, decoder.proposals().expect("proposals"))
    };
    (0..count).map(|_| round()).collect()
}

fn samplings() -> Vec<SamplingParams> {
    let greedy = SamplingParams::default();
    let drawn = greedy.clone().temperature(0.8).seed(7).top_k(40).top_p(0.95);
    let penalties = greedy
        .clone()
        .repetition_penalty(1.3)
        .presence_penalty(0.2)
        .frequency_penalty(0.4)
        .logit_bias(vec![(9, 2.0)])
        .banned(vec![11]);
    let both = penalties.clone().temperature(1.0).seed(3);
    vec![greedy, drawn, penalties, both]
}

#[test]
fn two_devices_propose_and_write_what_one_does() {
    for recipe in Recipe::each_family(61) {
        let target = upload(&recipe, &plan(CacheFormat::F16));
        let stranger = Recipe { seed: 62, ..recipe.clone() };
        let drafts = [
            ("itself", target.clone(), upload_on(elsewhere(), &recipe)),
            ("a stranger", upload(&stranger, &plan(CacheFormat::F16)), upload_on(elsewhere(), &stranger)),
        ];
        let prompt = Random::new(5).indices(23, recipe.config.vocab_size);
        for sampling in samplings() {
            let alone = options(Method::Ar, 0, &sampling);
            let alone: Vec<u32> = rounds(&mut decoder(&target, &target, alone), &prompt, 40)
                .into_iter()
                .flat_map(|(tokens, _)| tokens)
                .collect();
            for (name, here, there) in &drafts {
                for (method, count) in [(Method::Vsd, 3), (Method::Pard, 1), (Method::Pard, 6)] {
                    let what = format!("{:?}, {method:?}, K = {count}, {name}, {sampling:?}", recipe.config.family);
                    let options = || options(method, count, &sampling);
                    let on_one = rounds(&mut decoder(&target, here, options()), &prompt, 9);
                    let on_two = rounds(&mut decoder(&target, there, options()), &prompt, 9);
                    assert_eq!(on_two, on_one, "{what}");
                    let tokens: Vec<u32> = on_two.into_iter().flat_map(|(tokens, _)| tokens).collect();
                    let same = tokens.len().min(alone.len());
                    assert_eq!(tokens[..same], alone[..same], "{what}");
                }
            }
        }
    }
}

/// Speculation that rested lets the draft catch up, and a conversation goes on after a cut.
#[test]
fn a_draft_elsewhere_catches_up() {
    let flat = PassCost::from_points(&[(1, 1.0), (32, 1.01)]);
    let steep = PassCost::from_points(&[(1, 1.0), (32, 32.0)]);
    let recipe = Recipe::qwen3(71);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let draft = upload_on(elsewhere(), &recipe);
    for sampling in samplings() {
        let options = |method, drafts| options(method, 0, &sampling).drafts(drafts);
        let prompt = Random::new(6).indices(12, recipe.config.vocab_size);
        let mut alone = decoder(&target, &target, options(Method::Ar, DraftLength::Fixed(0)));
        let mut auto = decoder(&target, &draft, options(Method::Pard, DraftLength::Auto));
        auto.set_costs(Costs { target: steep.clone(), draft: steep.clone() });
        auto.start(&prompt).expect("start");
        alone.start(&prompt).expect("start");
        for _ in 0..25 {
            assert_eq!(auto.round().expect("round").len(), 1);
        }
        auto.set_costs(Costs { target: flat.clone(), draft: flat.clone() });
        let proposed = |decoder: &Sequence| decoder.statistics().proposed.iter().sum::<usize>();
        let before = proposed(&auto);
        for _ in 0..4 {
            auto.round().expect("round");
        }
        assert!(proposed(&auto) > before, "it speculates again");
        while alone.tokens().len() < auto.tokens().len() {
            alone.round().expect("round");
        }
        assert_eq!(auto.tokens(), &alone.tokens()[..auto.tokens().len()], "{sampling:?}");

        let end = auto.tokens().len() - 3;
        let mut more = auto.tokens()[..end].to_vec();
        more.extend([3, 1, 4]);
        auto.truncate(end);
        auto.resume(&more).expect("resume");
        alone.truncate(end);
        alone.resume(&more).expect("resume");
        for _ in 0..6 {
            auto.round().expect("round");
        }
        while alone.tokens().len() < auto.tokens().len() {
            alone.round().expect("round");
        }
        assert_eq!(auto.tokens(), &alone.tokens()[..auto.tokens().len()], "{sampling:?}, resumed");
    }
}

#[test]
fn a_crossing_counts_in_choosing_k() {
    let recipe = Recipe::llama(81);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    // Passes of a microsecond: no crossing is worth them.
    let flat = |seconds| PassCost::from_points(&[(1, seconds)]);
    let speculation = |draft: &Arc<Weights>| {
        let options = options(Method::Pard, 0, &SamplingParams::default()).drafts(DraftLength::Auto);
        let mut decoder = decoder(&target, draft, options);
        decoder.set_costs(Costs { target: flat(1e-6), draft: flat(1e-7) });
        decoder.speculation().expect("K is chosen")
    };
    assert_eq!(speculation(&target), Speculation::Pays);
    assert_eq!(speculation(&upload_on(elsewhere(), &recipe)), Speculation::TooSlow);
}

#[test]
fn what_a_draft_shares_is_copied_to_its_device() {
    let plan = plan(CacheFormat::F16);
    for recipe in Recipe::each_family(91) {
        let target = upload(&recipe, &plan);
        let vocab = recipe.config.vocab_size;
        for vocabulary in [None, Some(SharedDraft::third(vocab))] {
            let files = SharedDraft::new(&Recipe { seed: 92, ..recipe.clone() }, MASK, vocabulary);
            let here = files.upload(&target, &plan).expect("a draft");
            let there = files.upload_on(elsewhere(), &target, &plan).expect("a draft");
            assert!(there.bytes() > here.bytes(), "the copies are its own");
            let prompt = Random::new(9).indices(20, vocab);
            let greedy = SamplingParams::default();
            let [one, two] = [&here, &there]
                .map(|draft| rounds(&mut decoder(&target, draft, options(Method::Pard, 5, &greedy)), &prompt, 6));
            assert_eq!(two, one, "{:?}", recipe.config.family);
        }
    }
}

#[test]
fn what_cannot_cross_is_refused() {
    let recipe = Recipe::qwen2(101);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let model = upload_on(elsewhere(), &recipe);
    let draft = Draft::from_weights("draft", model.clone(), Some(MASK));
    let drawn = SamplingParams::default().temperature(0.7);
    let rejecting =
        |sampling: &SamplingParams| options(Method::Pard, 3, sampling).acceptance(AcceptanceRule::Rejection);
    let refused = Sequence::new(&target, Some(&draft), rejecting(&drawn)).map(drop);
    let is_named = |error: &Error| matches!(error, Error::Option { option: pard::error::OptionName::Acceptance, reason } if reason.contains("two devices"));
    assert!(refused.as_ref().is_err_and(is_named), "{refused:?}");
    // Without draws there is nothing to reject by; what comes later is refused later.
    let mut greedy = decoder(&target, &model, rejecting(&SamplingParams::default()));
    assert!(greedy.set_sampling(drawn.clone()).as_ref().is_err_and(is_named));
    assert!(Sequence::new(&target, Some(&draft), rejecting(&drawn).method(Method::Ar)).is_ok());

    let query = |device: &str| AdapterQuery::default().device(Some(device.to_owned())).backend(None);
    assert!(is_same_adapter(&AdapterQuery::default(), &AdapterQuery::default()).expect("an adapter"));
    assert!(is_same_adapter(&query("0"), &query("0")).expect("an adapter"));
    assert!(is_same_adapter(&AdapterQuery::default(), &query("no such card")).is_err());
    assert!(!elsewhere().is_same(device()) && device().is_same(&device().clone()));
}

#[test]
fn a_lost_draft_device_is_an_error() {
    let recipe = Recipe::llama(111);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let lost = open();
    let mut decoder =
        decoder(&target, &upload_on(&lost, &recipe), options(Method::Pard, 4, &SamplingParams::default()));
    decoder.start(&[3, 1, 4, 1, 5]).expect("start");
    decoder.round().expect("a round");
    lost.destroy();
    let error = decoder.round().map(<[u32]>::to_vec).expect_err("half of it is gone");
    assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
}
