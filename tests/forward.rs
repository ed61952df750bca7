//! The forward pass on the device against the f64 one: every family, as a prompt, token by token, and as a verify.

use pard_engine::gpu::{Buffer, CacheFormat};
use pard_engine::model::Sequence;
use pard_engine::ops::Role;

use crate::comparison::relative_error;
use crate::oracle;
use crate::support::gpu::{device, plan, upload};
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

/// Positions of the caches; two parts of attention's keys and a bit.
const POSITIONS: usize = 600;

fn sequence(recipe: &Recipe, cache: CacheFormat) -> Sequence {
    let model = upload(recipe, &plan(cache));
    let choices = Buffer::storage(device(), "choices", 128).expect("a small buffer");
    Sequence::new(&model, POSITIONS, recipe.config.vocab_size, &choices).expect("a small model fits")
}

#[test]
fn logits_agree_with_f64_in_every_family() {
    for recipe in Recipe::each_family(1) {
        for (cache, bound) in [(CacheFormat::F32, 1e-4), (CacheFormat::F16, 5e-3)] {
            let sequence = sequence(&recipe, cache);
            let vocab = recipe.config.vocab_size;
            let tokens = Random::new(7).indices(40, vocab);
            let expected = oracle::transformer::logits(&recipe.config, &recipe.tensors(), &tokens);
            // The first 26 as a prompt, one alone, then 13 at once.
            sequence.prefill(&tokens[..26], 0, &|| true).expect("prefill");
            for (first, rows) in [(26, 1), (27, 13)] {
                sequence.run(Role::Round, &tokens[first..first + rows], first, rows).expect("rows");
                let logits = sequence.logits(rows).expect("logits");
                for (row, actual) in logits.chunks(vocab).enumerate() {
                    let expected: Vec<f32> = expected[first + row].iter().map(|&value| value as f32).collect();
                    let error = relative_error(actual, &expected);
                    assert!(
                        error <= bound,
                        "{:?}, {cache:?} cache, position {}: relative error {error:e} above {bound:e}",
                        recipe.config.family,
                        first + row
                    );
                }
            }
        }
    }
}
