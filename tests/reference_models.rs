//! Two implementations written apart, candle's and the f64 oracles', read the tiny models the same way.

use std::collections::BTreeSet;

use pard::checkpoint::config::{Config, Experts, RopeScaling, Yarn};

use crate::comparison::relative_error;
use crate::oracle::argmax::argmax;
use crate::oracle::transformer;
use crate::support::candle_reference::{self, CandleModel};
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

const TOKENS: usize = 40;

fn tokens(recipe: &Recipe) -> Vec<u32> {
    Random::new(recipe.seed + 1000).indices(TOKENS, recipe.config.vocab_size)
}

fn narrowed(logits: &[f64]) -> Vec<f32> {
    logits.iter().map(|&logit| logit as f32).collect()
}

#[test]
fn candle_and_the_oracles_agree_on_every_family() {
    for seed in 0..2 {
        let mixed = [Recipe::qwen3_moe(seed), Recipe::partly_mixed(seed)];
        for recipe in Recipe::each_family(seed).into_iter().chain(mixed) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let tensors = recipe.write(folder.path());
            let tokens = tokens(&recipe);
            let expected = transformer::logits(&recipe.config, &tensors, &tokens);
            let positions: Vec<usize> = (0..TOKENS).collect();
            let got = candle_reference::logits(folder.path(), &tokens, &positions);
            let family = recipe.config.family;
            for (position, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert_eq!(got.len(), recipe.config.vocab_size);
                let error = relative_error(got, &narrowed(expected));
                // candle's rotary angles are f32 products, off by position · 2^-24: some 1e-6 of the logits here.
                assert!(error <= 2e-5, "{family:?}, seed {seed}, position {position}: {error:e}");
            }
        }
    }
}

/// candle's windows count one key more, and a pass of one row has none, so that each prefix is fed whole.
#[test]
fn candle_and_the_oracles_agree_within_windows() {
    let all_windowed = |mut recipe: Recipe| {
        recipe.config.sliding_window.as_mut().expect("a window").layers.fill(true);
        recipe
    };
    for recipe in [Recipe::mistral(6), all_windowed(Recipe::partly_windowed(6))] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tensors = recipe.write(folder.path());
        let tokens = tokens(&recipe);
        let expected = transformer::logits(&recipe.config, &tensors, &tokens);
        let mut model = CandleModel::load(folder.path());
        for position in [0, 17, 18, 20, 21, TOKENS - 1] {
            let got = model.logits(&tokens[..=position], &[position]);
            let error = relative_error(&got[0], &narrowed(&expected[position]));
            assert!(error <= 2e-5, "{:?}, position {position}: {error:e}", recipe.config.family);
        }
    }
}

#[test]
fn candle_gives_the_same_logits_token_by_token_and_at_once() {
    for recipe in Recipe::each_family(7) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        recipe.write(folder.path());
        let tokens = tokens(&recipe);
        let mut model = CandleModel::load(folder.path());
        let single = model.logits(&tokens, &(0..TOKENS).collect::<Vec<_>>());
        let pieces = model.logits(&tokens, &[0, 12, 13, TOKENS - 1]);
        let whole = model.logits(&tokens, &[TOKENS - 1]);
        let pairs =
            [(&pieces[0], 0), (&pieces[1], 12), (&pieces[2], 13), (&pieces[3], TOKENS - 1), (&whole[0], TOKENS - 1)];
        for (got, position) in pairs {
            assert!(got.iter().all(|logit| logit.is_finite()));
            let error = relative_error(got, &single[position]);
            assert!(error <= 1e-5, "{:?}, position {position}: {error:e}", recipe.config.family);
        }
    }
}

#[test]
fn tiny_models_write_varied_text() {
    for seed in 0..3 {
        for recipe in Recipe::each_family(seed) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            recipe.write(folder.path());
            let mut model = CandleModel::load(folder.path());
            let mut text = vec![5, 17, 200];
            while text.len() < 3 + TOKENS {
                let logits = model.logits(&text, &[text.len() - 1]);
                text.extend(argmax(&logits[0], logits[0].len()));
            }
            let distinct: BTreeSet<u32> = text[3..].iter().copied().collect();
            let family = recipe.config.family;
            assert!(distinct.len() >= 16, "{family:?}, seed {seed}: {} distinct of {TOKENS}: {text:?}", distinct.len());
        }
    }
}

/// A term that made no difference would go untested; so each must, and by far more than the tolerance.
#[test]
fn every_term_of_the_families_matters() {
    let changed = |recipe: &Recipe, change: fn(&mut Config)| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tensors = recipe.write(folder.path());
        let mut config = recipe.config.clone();
        change(&mut config);
        let tokens = tokens(recipe);
        let last = |config: &Config| narrowed(&transformer::logits(config, &tensors, &tokens)[TOKENS - 1]);
        relative_error(&last(&config), &last(&recipe.config))
    };
    fn experts(config: &mut Config) -> &mut Experts {
        config.experts.as_mut().expect("experts")
    }
    let [llama, qwen2, qwen3] = Recipe::each_family(3);
    for (term, difference) in [
        ("llama3 scaling", changed(&llama, |config| config.rope_scaling = RopeScaling::None)),
        ("yarn", changed(&Recipe::stretched(3), |config| config.rope_scaling = RopeScaling::None)),
        (
            "magnitude",
            changed(&Recipe::stretched(3), |config| {
                if let RopeScaling::Yarn(yarn) = &mut config.rope_scaling {
                    yarn.attention_factor = 1.0;
                }
            }),
        ),
        (
            "stretching",
            changed(&Recipe::stretched(3), |config| {
                config.rope_scaling = RopeScaling::Yarn(Yarn { factor: 2.0, ..Yarn::new(4.0, 1000.0) });
            }),
        ),
        ("window", changed(&Recipe::mistral(3), |config| config.sliding_window = None)),
        (
            "last key of the window",
            changed(&Recipe::partly_windowed(3), |config| {
                config.sliding_window.as_mut().expect("a window").tokens -= 1;
            }),
        ),
        ("theta", changed(&llama, |config| config.rope_theta = 1e4)),
        ("bias", changed(&qwen2, |config| config.qkv_bias = false)),
        ("head norm", changed(&qwen3, |config| config.head_norm = false)),
        ("shares", changed(&Recipe::qwen3_moe(3), |config| experts(config).normalised = false)),
        ("experts of a row", changed(&Recipe::qwen3_moe(3), |config| experts(config).used = 1)),
        ("epsilon", changed(&qwen3, |config| config.norm_epsilon = 1e-2)),
    ] {
        assert!(difference > 1e-3, "without its {term} the model differs by {difference:e} only");
    }
}

#[test]
fn the_folder_is_complete_and_depends_on_the_seed_alone() {
    let written = |seed: u64| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut recipe = Recipe::qwen3(seed);
        recipe.config.mask_token = Some(300);
        recipe.write(folder.path());
        let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder.path())
            .expect("the folder")
            .map(|entry| entry.expect("an entry"))
            .map(|entry| {
                (entry.file_name().into_string().expect("a name"), std::fs::read(entry.path()).expect("a file"))
            })
            .collect();
        files.sort();
        files
    };
    let files = written(1);
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "config.json",
            "generation_config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
    let config: serde_json::Value = serde_json::from_slice(&files[0].1).expect("JSON");
    assert_eq!((&config["pard_token"], &config["spd_type"]), (&300.into(), &"pard".into()));
    assert_eq!(files, written(1));
    assert_ne!(files[2], written(2)[2]);
}
