//! The forward pass on the device against two others: the f64 one, and candle's on the CPU. Every family, as a prompt,
//! token by token, and as a verify of 13 rows, with every cache format.

use std::path::Path;

use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{Buffer, CacheFormat, KernelPlan};
use pard::low_level::ops::{MAX_ROWS, Phase};

use crate::comparison::relative_error;
use crate::ops::matmul::GPU_PLANS;
use crate::oracle;
use crate::support::candle_reference;
use crate::support::gpu::{cooperative_plan, device, plan, upload};
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

/// Positions of the caches; two parts of attention's keys and a bit.
const POSITIONS: usize = 600;
/// The cache formats, and how far logits may be from the reference: ‖out - ref‖ / ‖ref‖.
const BARS: [(CacheFormat, f64); 3] = [(CacheFormat::F32, 1e-4), (CacheFormat::F16, 5e-3), (CacheFormat::Q8_0, 1e-1)];

/// A model's forward pass, and what it was seen to say where.
struct Run {
    context: String,
    sequence: ModelRunner,
    vocab: usize,
    seen: Vec<(usize, Vec<f32>)>,
}

impl Run {
    fn new(recipe: &Recipe, plan: KernelPlan) -> Self {
        let model = upload(recipe, &plan);
        let choices = Buffer::storage(device(), "choices", 4 * MAX_ROWS as u64).expect("a small buffer");
        let vocab = recipe.config.vocab_size;
        let sequence = ModelRunner::new(&model, POSITIONS, vocab, &choices).expect("a small model fits");
        let context = format!("{:?}, {plan}", recipe.config.family);
        Self { context, sequence, vocab, seen: Vec::new() }
    }

    /// Runs `tokens[start..end]` and keeps the logits of the last `outputs` of them.
    fn rows(&mut self, role: Phase, tokens: &[u32], start: usize, end: usize, outputs: usize) {
        self.sequence.run(role, &tokens[start..end], start, outputs).expect("rows");
        let logits = self.sequence.logits(outputs).expect("logits");
        self.seen.extend((end - outputs..end).zip(logits.chunks(self.vocab).map(<[f32]>::to_vec)));
    }

    fn check(&self, position: usize, actual: &[f32], expected: &[f32], bar: f64) {
        let error = relative_error(actual, expected);
        assert!(error <= bar, "{}, position {position}: {error:e} is above {bar:e}", self.context);
    }
}

#[test]
fn logits_agree_with_f64_in_every_family() {
    logits_agree_with_f64(&BARS.map(|(cache, bar)| (plan(cache), bar)));
}

/// The 8-bit cache would let other experts be chosen.
#[test]
fn logits_of_experts_agree_with_f64() {
    let bars = BARS[..2].iter().map(|&(cache, bar)| (plan(cache), bar));
    let others = GPU_PLANS.map(|plan| (KernelPlan { cache: CacheFormat::F32, ..plan }, BARS[0].1));
    for recipe in [Recipe::qwen3_moe(1), Recipe::partly_mixed(1)] {
        recipe_agrees_with_f64(&recipe, &bars.clone().chain(others).collect::<Vec<_>>());
    }
}

#[test]
fn logits_of_cooperative_products_agree_with_f64_in_every_family() {
    let Some(plan) = cooperative_plan("logits of cooperative products") else { return };
    logits_agree_with_f64(&BARS.map(|(cache, bar)| (KernelPlan { cache, ..plan }, bar)));
}

/// Under each plan, within its bar.
fn logits_agree_with_f64(plans: &[(KernelPlan, f64)]) {
    let others = [Recipe::stretched(1), Recipe::mistral(1), Recipe::partly_windowed(1)];
    Recipe::each_family(1).into_iter().chain(others).for_each(|recipe| recipe_agrees_with_f64(&recipe, plans));
}

fn recipe_agrees_with_f64(recipe: &Recipe, plans: &[(KernelPlan, f64)]) {
    let tokens = Random::new(7).indices(40, recipe.config.vocab_size);
    let expected = oracle::transformer::logits(&recipe.config, &recipe.tensors(), &tokens);
    for &(plan, bar) in plans {
        let mut run = Run::new(recipe, plan);
        run.rows(Phase::Prefill, &tokens, 0, 26, 8);
        run.rows(Phase::Decode, &tokens, 26, 27, 1);
        run.rows(Phase::Decode, &tokens, 27, 40, 13);
        for (position, actual) in &run.seen {
            let expected: Vec<f32> = expected[*position].iter().map(|&value| value as f32).collect();
            run.check(*position, actual, &expected, bar);
        }
    }
}

#[test]
fn logits_agree_with_candle_after_200_decoded_tokens() {
    for recipe in Recipe::each_family(2) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        recipe.write(folder.path());
        // Two parts of attention's keys: 256 lies within the verified rows.
        let tokens = Random::new(8).indices(263, recipe.config.vocab_size);
        let expected = candle(folder.path(), &tokens);
        for (cache, bar) in BARS {
            let mut run = Run::new(&recipe, plan(cache));
            run.rows(Phase::Prefill, &tokens, 0, 50, 4);
            for position in 50..249 {
                run.rows(Phase::Decode, &tokens, position, position + 1, 0);
            }
            run.rows(Phase::Decode, &tokens, 249, 250, 1);
            run.rows(Phase::Decode, &tokens, 250, 263, 13);
            for ((position, actual), expected) in run.seen.iter().zip(&expected) {
                run.check(*position, actual, expected, bar);
            }
        }
    }
}

/// candle's logits where the test above looks.
fn candle(folder: &Path, tokens: &[u32]) -> Vec<Vec<f32>> {
    let positions: Vec<usize> = (46..50).chain(249..263).collect();
    candle_reference::logits(folder, tokens, &positions)
}
