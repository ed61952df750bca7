//! Memory estimates equal the memory allocated, and models that surely do not fit are refused.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use pard::Error;
use pard::checkpoint::Checkpoint;
use pard::checkpoint::ModelFiles;
use pard::checkpoint::config::Config;
use pard::decoding::{Costs, Draft, DraftLength, Method, Sequence, SequenceOptions, cache_positions};
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{AdapterQuery, CacheFormat, Device, KernelPlan, MatmulChoice};
use pard::low_level::ops::WeightFormat;
use pard::model::{LoadOptions, MemoryEstimate, MemoryPlan, Model, PassCost, WeightDtype, Weights};

use crate::support::gpu::cooperative_plan;
use crate::support::memory::Memory;
use crate::support::shared_draft::SharedDraft;
use crate::support::tiny_model::Recipe;

const CONTEXT: usize = 300;

/// A device of its own, on which one test at a time counts.
static DEVICE: LazyLock<Mutex<Device>> =
    LazyLock::new(|| Mutex::new(Device::open(&AdapterQuery::default()).expect("an adapter")));

fn alone<R>(test: impl FnOnce(&Device) -> R) -> R {
    test(&DEVICE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn upload(device: &Device, plan: &KernelPlan, config: &Config, files: &dyn Checkpoint, choice: WeightDtype) -> Weights {
    Weights::upload(device, plan, config, files, choice, &|_, _| ()).expect("upload")
}

fn decoder(target: &Arc<Weights>, draft: Option<&Arc<Weights>>) -> Sequence {
    let draft = draft.map(|model| Draft::from_weights("draft", model.clone(), Some(5)));
    let method = if draft.is_some() { Method::Pard } else { Method::Ar };
    let options = SequenceOptions::default().method(method).drafts(DraftLength::Fixed(4)).context(CONTEXT);
    Sequence::new(target, draft.as_ref(), options).expect("a decoder")
}

/// Checks a sum against what the device has allocated since it held `before` bytes.
fn expect(what: &str, device: &Device, before: u64, need: MemoryEstimate) {
    let (allocated, needed) = (device.allocated_bytes() - before, need.total());
    let share = allocated as f64 / needed as f64;
    assert!(
        (0.95..=1.05).contains(&share),
        "{what}: {allocated} bytes are allocated, {needed} were foretold: {need:?}"
    );
}

/// The sums for `files` alone: weights, and with a decoder.
pub fn expect_allocated(what: &str, config: &Config, files: &dyn Checkpoint, choice: WeightDtype) {
    alone(|device| {
        let plans = [CacheFormat::F16, CacheFormat::F32].map(|cache| KernelPlan { cache, ..device.default_plan() });
        for plan in plans {
            let before = device.allocated_bytes();
            let blueprint = MemoryPlan::new(config, files, choice, None).expect("whole files");
            let model = Arc::new(upload(device, &plan, config, files, choice));
            let weights = MemoryEstimate { weights: blueprint.weight_bytes(&plan), ..MemoryEstimate::default() };
            expect(&format!("{what}, {choice:?}, weights"), device, before, weights);
            let matrices: u64 = model.bytes();
            assert!(matrices <= weights.weights && matrices * 10 > weights.weights * 9, "{what}: {matrices}");
            let decoder = decoder(&model, None);
            let need = blueprint.need(device, &plan, cache_positions(CONTEXT));
            expect(&format!("{what}, {choice:?}, {:?}", plan.cache), device, before, need);
            drop((model, decoder));
            assert_eq!(device.allocated_bytes(), before, "{what}: what is dropped is not counted");
        }
    });
}

fn choices() -> [WeightDtype; 5] {
    let quantised = |layers| WeightDtype::Quantised { layers, ends: WeightFormat::Q8_0 };
    [
        WeightDtype::Compact,
        WeightDtype::Bf16,
        WeightDtype::F32,
        quantised(WeightFormat::Q8_0),
        quantised(WeightFormat::Q4K),
    ]
}

#[test]
fn what_is_needed_is_what_is_allocated() {
    for recipe in Recipe::each_family(5) {
        let files = Memory::new(recipe.tensors());
        for choice in choices() {
            expect_allocated(&format!("{:?}", recipe.config.family), &recipe.config, &files, choice);
        }
    }
}

#[test]
fn drafts_are_counted_beside_their_targets() {
    alone(|device| {
        let plan = device.default_plan();
        let positions = cache_positions(CONTEXT);
        for recipe in Recipe::each_family(7) {
            let what = |draft: &str| format!("{:?} and {draft}", recipe.config.family);
            let files = Memory::new(recipe.tensors());
            let before = device.allocated_bytes();
            let blueprint = MemoryPlan::new(&recipe.config, &files, WeightDtype::Compact, None).expect("whole files");
            let target = Arc::new(upload(device, &plan, &recipe.config, &files, WeightDtype::Compact));
            let of_target = blueprint.need(device, &plan, positions);

            let itself = decoder(&target, Some(&target));
            let twice = blueprint.sequence_need(device, &plan, positions);
            expect(&what("itself"), device, before, of_target + twice);
            drop(itself);

            let other = Arc::new(upload(device, &plan, &recipe.config, &files, WeightDtype::Compact));
            let with_other = decoder(&target, Some(&other));
            expect(&what("another"), device, before, of_target + of_target);
            drop((other, with_other));

            for vocabulary in [None, Some(SharedDraft::third(recipe.config.vocab_size))] {
                let shared = SharedDraft::new(&recipe, 5, vocabulary);
                let model = shared.upload_on(device, &target, &plan).expect("a draft");
                let with_shared = decoder(&target, Some(&model));
                let draft = shared.blueprint(&blueprint).expect("whole files");
                expect(&what("a shared one"), device, before, of_target + draft.need(device, &plan, positions));
                drop((model, with_shared));
            }
        }
    });
}

#[test]
fn scales_of_cooperative_products_are_counted() {
    if cooperative_plan("the sums of cooperative products").is_none() {
        return;
    }
    alone(|device| {
        let options = LoadOptions::default().products(MatmulChoice::Cooperative);
        let plan = options.plan(device).expect("matrix units");
        let recipe = Recipe::qwen3(9);
        let files = Memory::new(recipe.tensors());
        let before = device.allocated_bytes();
        let blueprint = MemoryPlan::new(&recipe.config, &files, WeightDtype::Compact, None).expect("whole files");
        let model = upload(device, &plan, &recipe.config, &files, WeightDtype::Compact);
        let weights = MemoryEstimate { weights: blueprint.weight_bytes(&plan), ..MemoryEstimate::default() };
        expect("cooperative", device, before, weights);
        drop(model);
    });
}

#[test]
fn what_surely_finds_no_room_is_refused() {
    alone(|device| {
        let need = MemoryEstimate { weights: 3_000_000, caches: 1_500_000, scratch: 500_000 };
        assert!(need.check(device, Some(5_000_000), "less").is_ok());
        let error = need.check(device, Some(4_999_999), "a smaller model").expect_err("a byte too few");
        let Error::DoesNotFit { needed, available, .. } = error else { panic!("{error}") };
        assert_eq!((needed, available), (5_000_000, 4_999_999));
        for part in ["5.0 MB of device memory", "3.0 MB of weights", "1.5 MB of caches", "a smaller model"] {
            assert!(error.to_string().contains(part), "no {part:?} in {error}");
        }
        let memory = device.memory();
        assert!(memory.free.is_none() || memory.total.is_some(), "{memory:?}");
        if cfg!(target_os = "linux") && device.backend() == "vulkan" {
            assert!(memory.total.is_some_and(|total| total > 100_000_000), "{memory:?}");
        }
        // More than any machine has, and no overflow.
        let endless = MemoryEstimate { weights: u64::MAX, caches: u64::MAX, scratch: 1 };
        assert_eq!((endless + endless).total(), u64::MAX);
        assert_eq!(endless.check(device, None, "less").is_err(), memory.total.is_some());
    });
}

#[test]
fn a_model_that_lies_about_itself_has_no_blueprint() {
    let recipe = Recipe::llama(3);
    let blueprint =
        |config: &Config, tensors| MemoryPlan::new(config, &Memory::new(tensors), WeightDtype::Compact, None).map(drop);
    let mut tensors = recipe.tensors();
    tensors.remove("model.layers.1.mlp.up_proj.weight");
    let missing = blueprint(&recipe.config, tensors);
    assert!(matches!(missing, Err(Error::MissingTensor { name, .. }) if name.contains("layers.1.mlp.up_proj")));
    let wide = Config { feed_forward_size: 144, ..recipe.config.clone() };
    assert!(matches!(blueprint(&wide, recipe.tensors()), Err(Error::TensorShape { .. })));
    let none = Config { layers: 0, ..recipe.config.clone() };
    assert!(matches!(blueprint(&none, recipe.tensors()), Err(Error::Config { .. })));
}

/// A model of few bytes is its own sample: the passes that are timed are its own.
#[test]
fn a_sample_runs_as_many_layers_as_the_model() {
    let folder = tempfile::tempdir().expect("a folder");
    Recipe::qwen2(11).write(folder.path());
    let files = ModelFiles::open(folder.path()).expect("a model");
    alone(|device| {
        let options = LoadOptions::default().ignore_tuning(true);
        let sample = Model::sample(device, &files, options, None).expect("a sample");
        let whole = Model::upload(device, ModelFiles::open(folder.path()).expect("a model"), options, &|_, _| ());
        let logits = |model: &Arc<Weights>| {
            let choices = pard::low_level::gpu::Buffer::storage(device, "choices", 128).expect("a small buffer");
            let sequence = ModelRunner::new(model, 64, 320, &choices).expect("a sequence");
            assert!(PassCost::measure_steadily(&sequence).expect("times").of(1.0) > 0.0);
            assert!(PassCost::measure_at(&sequence, 63).expect("a time") > 0.0);
            sequence.run(pard::low_level::ops::Phase::Decode, &[3, 1, 4], 0, 3).expect("rows");
            sequence.logits(3).expect("logits")
        };
        assert_eq!(logits(&sample.weights), logits(&whole.expect("the model").weights));
    });
}

#[test]
fn a_promise_is_the_best_of_all_k() {
    // A draft of a fifth; rows cost nothing: all of sixteen are taken if all are accepted.
    let flat = |seconds: f64| PassCost::from_points(&[(1, seconds)]);
    let costs = Costs { target: flat(1.0), draft: flat(0.2) };
    let (drafts, rate) = costs.promise(Method::Pard, 1.0);
    assert_eq!(drafts, 16);
    assert!((rate - 17.0 / 1.2).abs() < 1e-9, "{rate}");
    assert_eq!(costs.promise(Method::Pard, 0.0), (0, 1.0));
    // In K passes of a fifth each, K tokens cost as much as five.
    let (drafts, rate) = costs.promise(Method::Vsd, 0.5);
    assert!(drafts > 0 && rate > 1.0 && rate < 1.5, "{drafts}, {rate}");
    assert!(costs.promise(Method::Pard, 0.9).1 > costs.promise(Method::Pard, 0.7).1);
}
