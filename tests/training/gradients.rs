//! The whole gradient of a two-layer draft of each family against candle's autograd.

use std::collections::BTreeMap;

use candle_core::Device::Cpu;
use candle_core::{Tensor, Var};
use fastrand::Rng;
use pard::checkpoint::config::Config;
use pard::low_level::gpu::{CacheFormat, KernelPlan};
use pard::low_level::ops::{Matrix, WeightFormat};
use pard::low_level::training::{CodRetention, Loss, Network, NetworkOptions, PackedRows, Sample};

use super::candle::{self, Row};
use crate::support::gpu::device;
use crate::support::memory::Memory;
use crate::support::random::Random;
use crate::support::tiny_model::{Recipe, Tensors};

/// Maximum error of a gradient, as a part of its tensor's largest.
pub const BAR: f32 = 2e-4;

/// Samples with a prompt that is not to be predicted.
pub fn samples(random: &mut Random, vocab: usize) -> Vec<Sample> {
    [(23, 5), (2, 1), (40, 20)]
        .map(|(len, answer)| Sample {
            tokens: random.indices(len, vocab - 1),
            labelled: (0..len).map(|at| at >= answer).collect(),
        })
        .to_vec()
}

/// A loss on candle, and its gradient by every tensor.
pub fn by_candle(
    tensors: &Tensors,
    loss: impl FnOnce(&candle::Tensors) -> Tensor,
) -> (f32, BTreeMap<String, Vec<f32>>) {
    let variables: BTreeMap<String, Var> = tensors
        .iter()
        .map(|(name, stored)| {
            let tensor = Tensor::from_slice(&stored.values, stored.shape.clone(), &Cpu).expect("a tensor");
            (name.clone(), Var::from_tensor(&tensor).expect("a variable"))
        })
        .collect();
    let weights = variables.iter().map(|(name, variable)| (name.clone(), variable.as_tensor().clone())).collect();
    let loss = loss(&weights);
    let gradients = loss.backward().expect("candle's backward pass");
    let gradients = variables.iter().map(|(name, variable)| {
        let gradient = gradients.get(variable).expect("every tensor takes part");
        (name.clone(), gradient.flatten_all().and_then(|flat| flat.to_vec1()).expect("a gradient"))
    });
    (loss.to_scalar().expect("a number"), gradients.collect())
}

/// A draft of two layers that trains all it has, of the text alone, with room for `rows` rows.
pub fn recipe_of<'a>(config: &'a Config, checkpoint: &'a Memory, mask_token: u32, rows: usize) -> NetworkOptions<'a> {
    NetworkOptions {
        config,
        checkpoint,
        layers: &[0, 1],
        mask_token,
        freeze_embeddings: false,
        vocabulary: None,
        rows,
        positions: 64,
        teacher: None,
        loss: Loss::TEXT,
        target_layers: &[],
    }
}

#[test]
fn gradients_are_those_of_candles_autograd() {
    for recipe in Recipe::each_family(61) {
        let mut config = recipe.config.clone();
        config.layers = 2;
        let recipe = Recipe { config: config.clone(), duplicate_head: false, ..recipe };
        let tensors = recipe.tensors();
        let mut random = Random::new(62);
        let mask = config.vocab_size as u32 - 1;
        let retention = CodRetention { segments: 4, ratio: 0.7, least: 0.2 };
        let mut packed = PackedRows::default();
        for sample in samples(&mut random, config.vocab_size) {
            packed.append(PackedRows::of(&sample, &retention, mask, &mut Rng::with_seed(63)));
        }
        let plan = KernelPlan { cache: CacheFormat::F32, ..device().default_plan() };
        let memory = Memory::new(tensors.clone());
        let network = Network::new(device(), &plan, &recipe_of(&config, &memory, mask, packed.rows.len() + 5))
            .expect("a network");
        let losses = network.learn(&packed, 1.0).expect("a pass");
        let (loss, expected) = by_candle(&tensors, |weights| {
            candle::loss(&config, weights, &Row::all(&packed), None).expect("candle's forward pass")
        });
        let ours: f32 = losses.iter().map(|row| row.cross_entropy).sum();
        assert!((ours - loss).abs() <= 1e-4 * loss, "{:?}: loss {ours}, candle's {loss}", config.family);

        compare(&network, &plan, &expected, BAR, &format!("{:?}", config.family));
    }
}

/// Compares the network's gradients with those `expected` of tensors by their names.
pub fn compare(network: &Network, plan: &KernelPlan, expected: &BTreeMap<String, Vec<f32>>, bar: f32, context: &str) {
    for parameter in network.parameters() {
        let names: Vec<&str> = parameter.tensors().iter().map(|(name, _)| name.as_str()).collect();
        let expected: Vec<f32> = names.iter().flat_map(|&name| expected[name].clone()).collect();
        let buffers = parameter.buffers();
        // Laid out as the gradients are, if it is a matrix.
        let height: usize = parameter.tensors().iter().map(|(_, height)| height).sum();
        let columns = expected.len() / height;
        let laid_out: Vec<Vec<f32>> = match columns {
            1 => vec![expected],
            _ => {
                let read = |rows: std::ops::Range<usize>, out: &mut [f32]| {
                    out.copy_from_slice(&expected[rows.start * columns..rows.end * columns]);
                    Ok(())
                };
                let matrix = Matrix::upload(device(), plan, "expected", WeightFormat::F32, [height, columns], &read)
                    .expect("a small matrix");
                let lens = buffers.iter().map(|&(_, len)| len);
                let parts = matrix.buffers().zip(lens);
                parts.map(|(part, len)| part.read(device(), 0, len).expect("reading back")).collect()
            }
        };
        for (([_, gradient], _), expected) in buffers.iter().zip(&laid_out) {
            let actual: Vec<f32> = gradient.read(device(), 0, expected.len()).expect("reading back");
            let size = expected.iter().map(|value| value.abs()).fold(0.0, f32::max);
            assert!(size > 0.0, "{names:?} has no gradient to compare");
            let worst = actual.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= bar * size, "{context}, {names:?}: {worst:e} off, of {size:e}");
        }
    }
}
