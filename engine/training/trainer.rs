//! The training loop: samples to passes, passes to steps. All that is random hangs on the seed and on where the run is, so
//! that a run repeats and a resumed one ends where it would have ended.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::network::{Network, NetworkOptions};
use super::optimizer::{Optimizer, OptimizerOptions};
use super::rows::{CodRetention, PackedRows, Sample};
use crate::error::{Error, OptionName, Result};
use crate::gpu::{Device, KernelPlan};

/// Options of a training run.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingOptions {
    /// Number of masks laid out for a sample.
    pub retention: CodRetention,
    /// The optimiser's numbers.
    pub optimizer: OptimizerOptions,
    /// Number of times that each sample is read.
    pub epochs: u64,
    /// Rows of an optimiser step, at most; more than a pass takes are several passes.
    pub batch_rows: usize,
    /// Steps over which the learning rate rises to its full height.
    pub warmup: u64,
    /// The learning rate's course over the run.
    pub schedule: Schedule,
    /// Part of its full height that the learning rate falls to.
    pub floor: f64,
    /// Part of the samples that are read without the target's states, so that the draft can do without them.
    pub state_dropout: f64,
    /// Names all that is random.
    pub seed: u64,
}

/// Course of the learning rate once it has risen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls along a line.
    Linear,
    /// It falls along half a period of the cosine.
    Cosine,
}

impl Schedule {
    /// The part of its full height after `progress` (0 to 1) of the run; `floor` at its end.
    fn rate(self, progress: f64, floor: f64) -> f64 {
        let share = match self {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - progress,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        floor + (1.0 - floor) * share
    }
}

/// Progress of a run: all that the next step depends on, except for the weights and moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// Optimiser steps done.
    pub step: u64,
    /// Whole readings of the samples.
    pub epoch: u64,
    /// Samples of this reading that are done.
    pub sample: usize,
}

/// Report of one step.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Progress of the run after it.
    pub position: Position,
    /// Mean cross-entropy, in nats, over the rows that have a label.
    pub loss: f64,
    /// Mean divergence from the teacher over the same rows, in nats; 0 without one.
    pub divergence: f64,
    /// For each segment, the rows that have a label and those whose choice it is; with a teacher, those whose choice is
    /// the teacher's.
    pub segments: Vec<[usize; 2]>,
    /// Tokens of the samples, masks not counted.
    pub tokens: usize,
    /// Rows, masks included.
    pub rows: usize,
    /// The gradients' norm before clipping.
    pub norm: f32,
    /// The time it took.
    pub time: Duration,
}

/// A run.
pub struct Trainer {
    network: Network,
    optimizer: Optimizer,
    samples: Vec<Sample>,
    options: TrainingOptions,
    position: Position,
    mask_token: u32,
    /// The order of the samples in the epoch of this number.
    order: (u64, Vec<usize>),
}

impl Trainer {
    /// A run over `samples`, at its beginning.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if a sample does not fit a pass or there is none; those of [`Network::new`].
    pub fn new(
        device: &Device,
        plan: &KernelPlan,
        recipe: &NetworkOptions,
        samples: Vec<Sample>,
        options: TrainingOptions,
    ) -> Result<Trainer> {
        if samples.is_empty() {
            return Err(Error::NoSamples { reason: "there is none".to_owned() });
        }
        let longest = samples.iter().map(|sample| sample.tokens.len()).max().unwrap_or_default();
        let most = options.retention.max_rows(longest);
        if most > recipe.rows || longest > recipe.positions {
            let reason = format!(
                "a sample of {longest} tokens takes up to {most} rows, and a pass {}; shorten samples or ask for more \
                 rows",
                recipe.rows
            );
            return Err(Error::Option { option: OptionName::Rows, reason });
        }
        let network = Network::new(device, plan, recipe)?;
        let optimizer = Optimizer::new(device, network.parameters(), options.optimizer)?;
        let (mask_token, position) = (recipe.mask_token, Position::default());
        let order = (0, order(options.seed, 0, samples.len()));
        Ok(Trainer { network, optimizer, samples, options, position, mask_token, order })
    }

    /// Returns `true` if all epochs are done.
    pub fn is_done(&self) -> bool {
        self.position.epoch >= self.options.epochs
    }

    /// The part of the run that is done, 0 to 1.
    pub fn progress(&self) -> f64 {
        let Position { epoch, sample, .. } = self.position;
        (epoch as f64 + sample as f64 / self.samples.len() as f64) / self.options.epochs.max(1) as f64
    }

    /// The progress of the run.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The draft.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The optimiser.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The options of the run.
    pub fn options(&self) -> &TrainingOptions {
        &self.options
    }

    /// Goes on from `position`; weights and moments are set by whoever read them.
    pub fn resume_at(&mut self, position: Position) {
        self.position = position;
    }

    /// One step, as part `progress` of the run (0 to 1), which the schedule goes by.
    ///
    /// # Errors
    ///
    /// [`Error::Diverged`]; as [`Device::check`](crate::gpu::GpuContext::check).
    pub fn step(&mut self, progress: f64) -> Result<StepReport> {
        let begin = Instant::now();
        let (passes, position, tokens) = self.next_passes();
        let labelled: usize = passes.iter().map(PackedRows::labelled).sum();
        let weight = 1.0 / labelled.max(1) as f32;
        let mut segments = vec![[0; 2]; self.options.retention.segments];
        let (mut loss, mut divergence) = (0.0, 0.0);
        let mut random = Rng::with_seed(mix(&[self.options.seed, 2, self.position.step]));
        for packed in &passes {
            let reading = self.reading(packed, &mut random);
            let losses = self.network.learn_reading(packed, weight, |row| reading[row])?;
            for ((row, label), &segment) in losses.iter().zip(&packed.labels).zip(&packed.segments) {
                if label.is_some() {
                    segments[segment][0] += 1;
                    let wanted = if self.network.has_teacher() { Some(row.teacher_choice) } else { *label };
                    segments[segment][1] += usize::from(wanted == Some(row.choice));
                    loss += f64::from(row.cross_entropy);
                    divergence += f64::from(row.divergence);
                }
            }
        }
        let number = self.position.step + 1;
        let norm = self.optimizer.step(number, self.rate(number, progress))?;
        self.position = position;
        Ok(StepReport {
            position,
            loss: loss / labelled.max(1) as f64,
            divergence: divergence / labelled.max(1) as f64,
            segments,
            tokens,
            rows: passes.iter().map(|packed| packed.rows.len()).sum(),
            norm,
            time: begin.elapsed(),
        })
    }

    /// For each row of a pass of the next step, whether it reads the target's states: by sample, masks included.
    fn reading(&self, packed: &PackedRows, random: &mut Rng) -> Vec<bool> {
        let samples = packed.samples();
        let reads: Vec<bool> = samples.iter().map(|_| random.f64() >= self.options.state_dropout).collect();
        // A sample's masks follow its tokens.
        let sample = |row: usize| samples.partition_point(|tokens| tokens.start <= row) - 1;
        (0..packed.rows.len()).map(|row| reads[sample(row)]).collect()
    }

    /// The learning rate of step `number`, as a part of the full one.
    fn rate(&self, number: u64, progress: f64) -> f64 {
        let rise = (number as f64 / self.options.warmup.max(1) as f64).min(1.0);
        rise * self.options.schedule.rate(progress.clamp(0.0, 1.0), self.options.floor)
    }

    /// The passes of the next step, where the run is after it, and how many tokens they hold.
    fn next_passes(&mut self) -> (Vec<PackedRows>, Position, usize) {
        let mut position = self.position;
        let (mut passes, mut rows, mut tokens) = (Vec::<PackedRows>::new(), 0, 0);
        while position.epoch < self.options.epochs {
            if self.order.0 != position.epoch {
                self.order = (position.epoch, order(self.options.seed, position.epoch, self.samples.len()));
            }
            let index = self.order.1[position.sample];
            let sample = &self.samples[index];
            let mut random = Rng::with_seed(mix(&[self.options.seed, 1, position.epoch, index as u64]));
            let packed = PackedRows::of(sample, &self.options.retention, self.mask_token, &mut random);
            if !passes.is_empty() && rows + packed.rows.len() > self.options.batch_rows {
                break;
            }
            rows += packed.rows.len();
            tokens += sample.tokens.len();
            match passes.last_mut().filter(|last| last.rows.len() + packed.rows.len() <= self.network.capacity()) {
                Some(last) => last.append(packed),
                None => passes.push(packed),
            }
            position.sample += 1;
            if position.sample == self.samples.len() {
                position = Position { epoch: position.epoch + 1, sample: 0, ..position };
            }
        }
        position.step += 1;
        (passes, position, tokens)
    }
}

/// The order in which epoch `epoch` reads `count` samples.
fn order(seed: u64, epoch: u64, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    Rng::with_seed(mix(&[seed, 0, epoch])).shuffle(&mut order);
    order
}

/// One number of several (splitmix64's finaliser, Steele et al. 2014).
fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state: u64, &part| {
        let mut z = state.wrapping_add(part).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
