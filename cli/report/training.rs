//! Training steps of a draft, on made-up weights and tokens.

use pard::low_level::gpu::{CacheFormat, Device, KernelPlan};
use pard::low_level::measure::{MadeWeights, Shape, Spread};
use pard::low_level::ops::WeightFormat;
use pard::low_level::training::{
    CodRetention, Loss, NetworkOptions, OptimizerOptions, Sample, Schedule, Trainer, TrainingOptions,
};
use serde_json::{Value, json};

/// Tokens of a sample, and samples of a step.
const SAMPLE: [usize; 2] = [128, 2];
const STEPS: usize = 5;

/// Steps of `shape` with its embeddings frozen, all other weights in f32; the first, which compiles the kernels, does not
/// count. None if `keep_going` ended it.
pub fn steps(
    device: &Device,
    plan: &KernelPlan,
    shape: &Shape,
    keep_going: &dyn Fn() -> bool,
) -> pard::Result<Option<(Spread, Value)>> {
    let [tokens, count] = SAMPLE;
    let config = &shape.config;
    let weights = MadeWeights::new(config, WeightFormat::Bf16);
    let retention = CodRetention { segments: 8, ratio: 0.7, least: 0.2 };
    let sample = |sample: usize| Sample {
        tokens: (0..tokens).map(|at| ((at + 1) * (sample + 7919) % config.vocab_size) as u32).collect(),
        labelled: (0..tokens).map(|at| at > 0).collect(),
    };
    let rows = count * retention.max_rows(tokens);
    let recipe = NetworkOptions {
        config,
        checkpoint: &weights,
        layers: &(0..config.layers).collect::<Vec<_>>(),
        mask_token: config.vocab_size as u32,
        freeze_embeddings: true,
        vocabulary: None,
        rows,
        positions: tokens,
        teacher: None,
        loss: Loss::TEXT,
        target_layers: &[],
    };
    let options = TrainingOptions {
        retention,
        optimizer: OptimizerOptions::default(),
        epochs: u64::MAX,
        batch_rows: rows,
        warmup: 0,
        schedule: Schedule::Constant,
        floor: 1.0,
        state_dropout: 0.0,
        seed: 1,
    };
    let plan = KernelPlan { cache: CacheFormat::F32, ..*plan };
    let mut trainer = Trainer::new(device, &plan, &recipe, (0..count).map(sample).collect(), options)?;
    let first = trainer.step(0.0)?;
    let mut times = Vec::new();
    while times.len() < STEPS && keep_going() {
        times.push(trainer.step(0.0)?.time.as_secs_f64());
    }
    let entry = json!({
        "shape": shape.name, "format": "bf16", "products": "plain", "layers": config.layers,
        "vocabulary": config.vocab_size, "tokens": first.tokens, "rows": first.rows,
    });
    Ok(Spread::of(&times).map(|spread| (spread, entry)))
}
