//! A draft that is held against a teacher: the gradient of PARD-2's loss against candle's autograd, the teacher being
//! another model that candle runs too; and what a teacher of another vocabulary means.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Device::Cpu;
use candle_core::{D, Tensor};
use fastrand::Rng;
use pard::Error;
use pard::checkpoint::config::Config;
use pard::low_level::gpu::{CacheFormat, KernelPlan};
use pard::low_level::training::{CodRetention, Loss, Network, NetworkOptions, PackedRows, Sample};
use pard::model::{WeightDtype, Weights};

use super::candle::{self, Row, Tensors as CandleTensors};
use super::gradients::{BAR, by_candle, compare, recipe_of, samples};
use crate::support::gpu::device;
use crate::support::memory::Memory;
use crate::support::random::Random;
use crate::support::tiny_model::{Recipe, Tensors};

fn plan() -> KernelPlan {
    KernelPlan { cache: CacheFormat::F32, ..device().default_plan() }
}

/// The same on candle.
pub fn weights(tensors: &Tensors) -> CandleTensors {
    let tensor = |(name, stored): (&String, &crate::support::tiny_model::Stored)| {
        (name.clone(), Tensor::from_slice(&stored.values, stored.shape.clone(), &Cpu).expect("a tensor"))
    };
    tensors.iter().map(tensor).collect()
}

/// The teacher: the same family with other weights and one layer more, on the device and on candle.
fn teacher(recipe: &Recipe) -> (Arc<Weights>, Config, CandleTensors) {
    let recipe = Recipe { seed: recipe.seed + 100, ..recipe.clone() };
    let tensors = recipe.tensors();
    let memory = Memory::new(tensors.clone());
    let model = Weights::upload(device(), &plan(), &recipe.config, &memory, WeightDtype::Compact, &|_, _| ());
    (Arc::new(model.expect("a small model")), recipe.config.clone(), weights(&tensors))
}

/// The row of the token that stands where each row does, found by counting.
fn token_rows(samples: &[PackedRows]) -> Vec<u32> {
    let mut rows = Vec::new();
    for sample in samples {
        let first = rows.len() as u32;
        rows.extend(sample.rows.iter().map(|row| first + row.position));
    }
    rows
}

/// The teacher's predictions by candle: the log-probabilities of the tokens `vocabulary` for each row, and the probability
/// of the tokens before it in its chain.
fn asked(config: &Config, weights: &CandleTensors, samples: &[PackedRows], vocabulary: &[u32]) -> (Tensor, Vec<f32>) {
    let (mut all, mut reached, mut first) = (Vec::new(), Vec::new(), 0);
    let indices: BTreeMap<u32, usize> = vocabulary.iter().enumerate().map(|(index, &id)| (id, index)).collect();
    let chosen = Tensor::new(vocabulary, &Cpu).expect("ids");
    for sample in samples {
        let reals = sample.segments.iter().filter(|&&segment| segment == 0).count();
        let rows: Vec<Row> = Row::all(sample).into_iter().take(reals).collect();
        let logits = candle::logits(config, weights, &rows, None).and_then(|logits| logits.index_select(&chosen, 1));
        let logits = logits.and_then(|logits| candle_nn::ops::log_softmax(&logits, D::Minus1)).expect("logits");
        let values: Vec<Vec<f32>> = logits.to_vec2().expect("values");
        // Element (s, p) is reached if the tokens p - s + 1 ..= p are said.
        for (row, &segment) in sample.segments.iter().enumerate() {
            let position = sample.rows[row].position as usize;
            let said = |at: usize| indices.get(&sample.ids[at + 1]).map_or(0.0, |&index| values[at][index].exp());
            reached.push((position - segment..position).map(said).product::<f32>());
        }
        all.push(logits);
        first += sample.rows.len();
    }
    assert_eq!(first, reached.len());
    // Rows of the samples' tokens, one sample below the other, picked for every row.
    let mut picks = Vec::new();
    let mut before = 0;
    for sample in samples {
        picks.extend(sample.rows.iter().map(|row| before + row.position));
        before += sample.segments.iter().filter(|&&segment| segment == 0).count() as u32;
    }
    let all = Tensor::cat(&all, 0).expect("one table");
    (all.index_select(&Tensor::new(picks, &Cpu).expect("rows"), 0).expect("a row each"), reached)
}

/// The rows of each sample alone, as the packed pass has them one after the other.
fn split(samples: &[Sample], retention: &CodRetention, mask: u32) -> Vec<PackedRows> {
    samples.iter().map(|sample| PackedRows::of(sample, retention, mask, &mut Rng::with_seed(63))).collect()
}

fn pack(parts: &[PackedRows]) -> PackedRows {
    let mut packed = PackedRows::default();
    parts.iter().for_each(|part| packed.append(part.clone()));
    packed
}

const RETENTION: CodRetention = CodRetention { segments: 4, ratio: 0.7, least: 0.2 };

#[test]
fn the_rows_of_samples_and_tokens_are_found() {
    let parts = split(&samples(&mut Random::new(81), 300), &RETENTION, 300);
    let packed = pack(&parts);
    let expected = token_rows(&parts);
    let found: Vec<u32> = (0..packed.rows.len()).map(|row| packed.token_row(row) as u32).collect();
    assert_eq!(found, expected);
    let mut first = 0;
    let ranges: Vec<_> = parts
        .iter()
        .map(|part| {
            let tokens = part.segments.iter().filter(|&&segment| segment == 0).count();
            first += part.rows.len();
            first - part.rows.len()..first - part.rows.len() + tokens
        })
        .collect();
    assert_eq!(packed.samples(), ranges);
}

#[test]
fn gradients_of_the_teachers_loss_are_those_of_candles_autograd() {
    for recipe in Recipe::each_family(82) {
        let (target, teacher_config, teacher_weights) = teacher(&recipe);
        let config = Config { layers: 2, ..recipe.config.clone() };
        let recipe = Recipe { config: config.clone(), duplicate_head: false, ..recipe };
        let tensors = recipe.tensors();
        let mask = config.vocab_size as u32 - 1;
        let parts = split(&samples(&mut Random::new(83), config.vocab_size), &RETENTION, mask);
        let packed = pack(&parts);
        let all: Vec<u32> = (0..config.vocab_size as u32).collect();
        let (wanted, reached) = asked(&teacher_config, &teacher_weights, &parts, &all);

        let network = Network::new(
            device(),
            &plan(),
            &NetworkOptions {
                teacher: Some(&target),
                loss: Loss::TEACHER,
                ..recipe_of(&config, &Memory::new(tensors.clone()), mask, packed.rows.len() + 5)
            },
        )
        .expect("a network");
        network.learn(&packed, 1.0).expect("a pass");

        // 0.1 · −ln p(token) + Σ q ln(q / p), each row that has a token as often as it is reached.
        let rows = Row::all(&packed);
        let labelled: Vec<u32> = (0..rows.len() as u32).filter(|&row| rows[row as usize].label.is_some()).collect();
        let labels: Vec<u32> = rows.iter().filter_map(|row| row.label).collect();
        let weights: Vec<f32> = labelled.iter().map(|&row| reached[row as usize]).collect();
        assert!(weights.iter().any(|&weight| weight < 0.5) && weights.contains(&1.0));
        let (_, expected) = by_candle(&tensors, |draft| {
            let loss = || -> candle_core::Result<Tensor> {
                let labelled = Tensor::new(labelled, &Cpu)?;
                let logits = candle::logits(&config, draft, &rows, None)?.index_select(&labelled, 0)?;
                let own = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
                let wanted = wanted.index_select(&labelled, 0)?;
                let divergence = (wanted.exp()? * (wanted - &own)?)?.sum(D::Minus1)?;
                let said = own.gather(&Tensor::new(labels, &Cpu)?.unsqueeze(1)?, 1)?.squeeze(1)?;
                ((divergence - (said * 0.1)?)? * Tensor::new(weights, &Cpu)?)?.sum_all()
            };
            loss().expect("candle's loss")
        });
        compare(&network, &plan(), &expected, BAR, &format!("{:?}", config.family));
    }
}

#[test]
fn a_reduced_vocabulary_is_asked_of_the_teacher_too() {
    let recipe = Recipe::llama(84);
    let (target, teacher_config, teacher_weights) = teacher(&recipe);
    let config = Config { layers: 1, ..recipe.config.clone() };
    let tensors = Recipe { config: config.clone(), ..recipe.clone() }.tensors();
    let mask = config.vocab_size as u32;
    let parts = split(&samples(&mut Random::new(85), config.vocab_size), &RETENTION, mask);
    let packed = pack(&parts);
    let vocabulary: Vec<u32> = (0..config.vocab_size as u32).filter(|id| id % 3 > 0).collect();
    let (wanted, _) = asked(&teacher_config, &teacher_weights, &parts, &vocabulary);
    let network = Network::new(
        device(),
        &plan(),
        &NetworkOptions {
            config: &config,
            checkpoint: &Memory::new(tensors.clone()),
            layers: &[0],
            mask_token: mask,
            freeze_embeddings: true,
            vocabulary: Some(&vocabulary),
            rows: packed.rows.len(),
            positions: 64,
            teacher: Some(&target),
            loss: Loss::TEACHER,
            target_layers: &[],
        },
    )
    .expect("a network");
    let losses = network.learn(&packed, 1.0).expect("a pass");

    let mut draft = weights(&tensors);
    let table = &draft["model.embed_tokens.weight"];
    let table = Tensor::cat(&[table, &table.mean_keepdim(0).expect("a row")], 0).expect("a longer table");
    draft.insert("model.embed_tokens.weight".to_owned(), table);
    let chosen = Tensor::new(&vocabulary[..], &Cpu).expect("ids");
    let logits =
        candle::logits(&config, &draft, &Row::all(&packed), None).and_then(|logits| logits.index_select(&chosen, 1));
    let own = logits.and_then(|logits| candle_nn::ops::log_softmax(&logits, D::Minus1)).expect("logits");
    let divergence = (&wanted - &own).and_then(|difference| difference * wanted.exp()?).and_then(|terms| terms.sum(1));
    let expected: Vec<f32> = divergence.and_then(|rows| rows.to_vec1()).expect("a number each");
    let choices: Vec<u32> = wanted.argmax(1).and_then(|rows| rows.to_vec1()).expect("a choice each");
    for (row, loss) in losses.iter().enumerate() {
        let (ours, expected) = (loss.divergence, expected[row]);
        assert!((ours - expected).abs() <= 1e-3 * expected.max(0.1), "row {row}: {ours}, candle's {expected}");
        assert_eq!(loss.teacher_choice, vocabulary[choices[row] as usize], "row {row}");
    }
}

#[test]
fn a_teacher_that_lacks_the_drafts_tokens_is_refused() {
    let recipe = Recipe::llama(86);
    let smaller = Recipe { config: Config { vocab_size: 250, ..recipe.config.clone() }, ..recipe.clone() };
    let (target, ..) = teacher(&smaller);
    let network = Network::new(
        device(),
        &plan(),
        &NetworkOptions {
            config: &recipe.config,
            checkpoint: &Memory::new(recipe.tensors()),
            layers: &[0],
            mask_token: 1,
            freeze_embeddings: false,
            vocabulary: None,
            rows: 64,
            positions: 64,
            teacher: Some(&target),
            loss: Loss::TEACHER,
            target_layers: &[],
        },
    );
    assert!(matches!(network.map(drop), Err(Error::Option { option: pard::error::OptionName::Teacher, .. })));
}
