//! Training learns a text by heart, which the decoder then gets whole in every round; and a run that is interrupted and
//! resumed ends with the same bits.

use std::path::Path;

use pard::checkpoint::ModelFiles;
use pard::checkpoint::config::{Config, SlidingWindow};
use pard::low_level::gpu::{CacheFormat, KernelPlan};
use pard::low_level::training::draft::{self, Embeddings};
use pard::low_level::training::measure::acceptance;
use pard::low_level::training::{
    CodRetention, Loss, NetworkOptions, OptimizerOptions, Sample, Schedule, StepReport, Trainer, TrainingOptions, state,
};
use pard::model::{LoadOptions, Model};
use pard::{Draft, Error};
use tempfile::TempDir;

use crate::support::gpu::device;
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

const MASK: u32 = 300;

/// A model that is small enough to learn a text in seconds, on the disk.
fn base(folder: &Path) -> ModelFiles {
    let recipe = Recipe::llama(71);
    let config = Config { layers: 2, tied_head: true, ..recipe.config };
    Recipe { config, ..recipe }.write(folder);
    ModelFiles::open(folder).expect("the model just written")
}

/// A text without any repetition to lean on, `len` tokens of it.
fn text(len: usize) -> Vec<Sample> {
    let tokens = Random::new(72).indices(len, 250);
    vec![Sample { labelled: (0..len).map(|at| at > 0).collect(), tokens }]
}

fn options(steps: u64) -> TrainingOptions {
    TrainingOptions {
        retention: CodRetention { segments: 8, ratio: 0.7, least: 0.2 },
        optimizer: OptimizerOptions { learning_rate: 3e-3, ..OptimizerOptions::default() },
        epochs: steps,
        batch_rows: 512,
        warmup: 10,
        schedule: Schedule::Linear,
        floor: 0.02,
        state_dropout: 0.0,
        seed: 73,
    }
}

fn recipe(files: &ModelFiles) -> NetworkOptions<'_> {
    NetworkOptions {
        config: &files.config,
        checkpoint: &*files.checkpoint,
        layers: &[0, 1],
        mask_token: MASK,
        freeze_embeddings: false,
        vocabulary: None,
        rows: 256,
        positions: 64,
        teacher: None,
        loss: Loss::TEXT,
        target_layers: &[],
    }
}

fn trainer(files: &ModelFiles, samples: Vec<Sample>, options: TrainingOptions) -> Trainer {
    let plan = KernelPlan { cache: CacheFormat::F32, ..device().default_plan() };
    Trainer::new(device(), &plan, &recipe(files), samples, options).expect("a trainer")
}

/// Training's attention forgets nothing, so that a window must be as long as a sample; the draft then has it too.
#[test]
fn a_model_with_a_shorter_attention_window_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let windowed = |tokens| {
        let base = Recipe::mistral(71);
        let layers = vec![false, true];
        let sliding_window = Some(SlidingWindow { tokens, layers });
        let config = Config { layers: 2, tied_head: true, sliding_window, context: 512, ..base.config };
        Recipe { config, ..base }
    };
    windowed(63).write(folder.path());
    let files = ModelFiles::open(folder.path()).expect("the model just written");
    let plan = KernelPlan { cache: CacheFormat::F32, ..device().default_plan() };
    let refused = Trainer::new(device(), &plan, &recipe(&files), text(40), options(1)).err();
    assert!(
        matches!(&refused, Some(Error::Option { option: pard::error::OptionName::Positions, reason }) if reason.contains("63")),
        "{refused:?}"
    );
    let first_layer = NetworkOptions { layers: &[0], ..recipe(&files) };
    assert!(Trainer::new(device(), &plan, &first_layer, text(40), options(1)).is_ok());

    windowed(64).write(folder.path());
    let files = ModelFiles::open(folder.path()).expect("the model just written");
    let trainer = Trainer::new(device(), &plan, &recipe(&files), text(40), options(1)).expect("a trainer");
    let out = TempDir::new().expect("a folder");
    draft::write(out.path(), device(), trainer.network(), &recipe(&files), Embeddings::Own(&files.text))
        .expect("a draft");
    let written = ModelFiles::open(out.path()).expect("the draft").config;
    assert_eq!(written.sliding_window, windowed(64).config.sliding_window);
}

fn step(trainer: &mut Trainer) -> StepReport {
    let progress = trainer.progress();
    trainer.step(progress).expect("a step")
}

fn weights(trainer: &Trainer) -> Vec<u32> {
    let parameters = trainer.network().parameters();
    parameters.flat_map(|parameter| parameter.read(device()).expect("weights")).map(f32::to_bits).collect()
}

#[test]
fn a_text_learnt_by_heart_is_accepted_whole_in_every_round() {
    let (base_folder, draft_folder) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let files = base(base_folder.path());
    let samples = text(40);
    let tokens = samples[0].tokens.clone();
    let mut trainer = trainer(&files, samples, options(250));
    let mut last = step(&mut trainer);
    let first_loss = last.loss;
    while !trainer.is_done() {
        last = step(&mut trainer);
    }
    assert!(first_loss > 4.0 && last.loss < 0.02, "the loss went from {first_loss} to {}", last.loss);
    let own = Embeddings::Own(&files.text);
    draft::write(draft_folder.path(), device(), trainer.network(), &recipe(&files), own).expect("a draft");

    let name = draft_folder.path().to_str().expect("a name in UTF-8");
    let model = Model::load(device(), name, LoadOptions::default()).expect("the draft as a model");
    assert_eq!(model.weights.config().mask_token, Some(MASK));
    let draft = Draft::new(&model, &model, None).expect("it drafts for itself");
    for drafts in [1, 3, 7] {
        // As many rounds as the text has room for.
        let begin = 4;
        let count = (tokens.len() - begin - 1) / (drafts + 1) * (drafts + 1) - drafts;
        let prompts = [tokens[..begin].to_vec()];
        let reached = acceptance(&model.weights, &draft, &prompts, &[], [drafts, count], &|| true).expect("rounds");
        assert_eq!(reached.tokens_per_round, (drafts + 1) as f64, "K = {drafts}: {:?}", reached.accepted);
    }
}

#[test]
fn a_run_taken_up_again_ends_with_the_same_bits() {
    let folder = TempDir::new().expect("a folder");
    let files = base(folder.path());
    let samples: Vec<Sample> = (0..5).flat_map(|at| text(20 + 3 * at)).collect();
    let path = folder.path().join("state.safetensors");
    let options = TrainingOptions { batch_rows: 300, ..options(6) };
    let mut whole = trainer(&files, samples.clone(), options.clone());
    let mut reports = Vec::new();
    while !whole.is_done() {
        reports.push(step(&mut whole));
    }
    for broken_off in [1, reports.len() / 2, reports.len() - 1] {
        let mut before = trainer(&files, samples.clone(), options.clone());
        for _ in 0..broken_off {
            step(&mut before);
        }
        state::save(&path, device(), &before, "this run").expect("a checkpoint");
        let mut after = trainer(&files, samples.clone(), options.clone());
        state::restore(&path, device(), &mut after, "this run").expect("the checkpoint again");
        for report in &reports[broken_off..] {
            let again = step(&mut after);
            assert_eq!(
                (again.loss, again.segments, again.position),
                (report.loss, report.segments.clone(), report.position)
            );
        }
        assert!(after.is_done());
        assert_eq!(weights(&after), weights(&whole), "broken off after {broken_off} steps");
        let other = state::restore(&path, device(), &mut before, "another run");
        assert!(matches!(other, Err(Error::OtherRun { .. })), "{other:?}");
    }
    std::fs::write(&path, b"no such file").expect("writing");
    let mut trainer = trainer(&files, samples, options);
    let damaged = state::restore(&path, device(), &mut trainer, "this run");
    assert!(matches!(damaged, Err(Error::Damaged { .. })), "{damaged:?}");
}
