//! `pard adapt`: makes a PARD draft of a model.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use pard::Error;
use pard::checkpoint::ModelFiles;
use pard::checkpoint::config::TargetLayers;
use pard::checkpoint::resolve::DEFAULT_MODEL;
use pard::low_level::gpu::{CacheFormat, Device, KernelPlan};
use pard::low_level::ops::gradients::MomentFormat;
use pard::low_level::training::data::{Dataset, LossOn, most_frequent};
use pard::low_level::training::draft::{self, Embeddings};
use pard::low_level::training::{
    CodRetention, Loss, NetworkOptions, OptimizerOptions, Schedule, Trainer, TrainingOptions, state,
};
use pard::model::{LoadOptions, Model};

use crate::args::{DeviceArguments, one_of, temperature};
use crate::output::{self, Verbosity};
use crate::usage::usage;
use crate::{interrupt, load};

mod held_out;
mod progress;
mod responses;

use held_out::HeldOut;
use progress::Recent;

#[derive(Args)]
pub struct AdaptArguments {
    /// The model that becomes a draft: `smollm2`, a folder, a .gguf file, or a repository of the Hugging Face hub
    /// (`owner/name[:Q4_K_M]`)
    #[arg(short, long, value_name = "MODEL", default_value = DEFAULT_MODEL)]
    pub model: String,
    /// Folder for the draft; the run's state is written beside it
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Training data: JSON lines with `messages`, `prompt` and `response`, or `text`; with --teacher also prompts alone, in
    /// the forms of `pard respond`. Several files may follow
    #[arg(long, value_name = "FILE.jsonl", required = true, num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// The target that the draft is for. It responds to prompts that come alone, once: the responses stay in --out
    #[arg(long, value_name = "MODEL")]
    pub teacher: Option<String>,
    /// The teacher's responses are drawn from softmax(logits / T); 0 takes the likeliest
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature, requires = "teacher")]
    pub temperature: f32,
    /// Training objective: the tokens of the text (PARD), or the teacher's predictions in their place, with less weight on
    /// rows that are seldom reached (PARD-2)
    #[arg(long, default_value = "text", value_parser = one_of(&[("text", Loss::TEXT), ("teacher", Loss::TEACHER)]), requires_if("teacher", "teacher"))]
    pub loss: Loss,
    /// Hidden states of the teacher, separated by commas, that the draft reads beside tokens, which makes it better and fit
    /// for this teacher (PARD-2's target-dependent mode): -1 is what the head reads, n what n layers make
    #[arg(long, value_name = "LAYERS", value_delimiter = ',', allow_hyphen_values = true, requires = "teacher")]
    pub target_layers: Vec<i32>,
    /// Part of the samples that are read without the teacher's states, so that the draft also serves without them
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, requires = "target_layers")]
    pub state_dropout: f64,
    /// Predict only the last answer of each conversation
    #[arg(long)]
    pub last_answer: bool,
    /// The layers of the model that the draft begins with, separated by commas [default: all]
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    pub layers: Vec<usize>,
    /// Leave embeddings and head as they are, but for the mask token's row. The draft then takes them from its target,
    /// which is the model itself, and its folder holds only what was trained
    #[arg(long)]
    pub freeze_embeddings: bool,
    /// Let the draft propose only the N tokens that the data has most often, which makes its head smaller
    #[arg(long, value_name = "N", requires = "freeze_embeddings")]
    pub draft_vocabulary: Option<usize>,
    /// The id that masks have [default: what the model's configuration names, else the first that is no token]
    #[arg(long, value_name = "ID")]
    pub mask_token: Option<u32>,
    /// Tokens predicted at once, K of the training
    #[arg(long, value_name = "K", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub train_len: u8,
    /// Segment s keeps this to the power of s of its rows,
    #[arg(long, value_name = "SHARE", default_value_t = 0.7)]
    pub retain: f64,
    /// but this share at least
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    pub retain_min: f64,
    /// Learning rate
    #[arg(long, value_name = "RATE", default_value_t = 3e-5)]
    pub lr: f64,
    /// Decoupled weight decay
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub weight_decay: f64,
    /// Format of AdamW's moments: bf16 takes half the memory
    #[arg(long, default_value = "f32", value_parser = one_of(&[("f32", MomentFormat::F32), ("bf16", MomentFormat::Bf16)]))]
    pub moments: MomentFormat,
    /// Steps over which the learning rate rises
    #[arg(long, value_name = "STEPS", default_value_t = 0)]
    pub warmup: u64,
    /// The learning rate's course once it has risen
    #[arg(long, default_value = "constant", value_parser = one_of(&SCHEDULES))]
    pub schedule: Schedule,
    /// Part of its height that the learning rate falls to
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, requires = "schedule")]
    pub floor: f64,
    /// Number of times each sample is read
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub epochs: u64,
    /// End after N minutes, if not sooner
    #[arg(long, value_name = "N")]
    pub minutes: Option<f64>,
    /// Rows of an optimiser step, masks included
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub batch_tokens: usize,
    /// Rows that run at once; more in a step take several passes, which is slower and takes less memory
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub pass_rows: usize,
    /// Tokens of a sample at most
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub seq_len: usize,
    /// Prompts that are not learnt from, to measure tokens per round on
    #[arg(long, value_name = "FILE.jsonl")]
    pub held_out: Option<PathBuf>,
    /// Steps from one measure and checkpoint to the next
    #[arg(long, value_name = "STEPS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub every: u64,
    /// Names all that is random
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Go on from the last checkpoint in --out
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub device: DeviceArguments,
    /// Print no notices and progress
    #[arg(short, long)]
    pub quiet: bool,
}

const SCHEDULES: [(&str, Schedule); 3] =
    [("constant", Schedule::Constant), ("linear", Schedule::Linear), ("cosine", Schedule::Cosine)];

/// The run's state, in the draft's folder.
const STATE: &str = "training_state.safetensors";

/// Runs the command.
pub fn run(arguments: &AdaptArguments) -> anyhow::Result<ExitCode> {
    let talk = Verbosity::unless(arguments.quiet);
    let files = load::open(&arguments.model, &arguments.device, talk)?;
    let state_path = arguments.out.join(STATE);
    if !arguments.resume && state_path.exists() {
        let reason =
            format!("{} holds a run; go on with it (--resume), or name another folder", arguments.out.display());
        return Err(usage("--out", reason));
    }
    output::check_folder(&arguments.out)?;
    interrupt::listen()?;
    let Some(data) = responses::complete(arguments, talk)? else { return Ok(interrupt::exit_code()) };
    let loss_on = if arguments.last_answer { LossOn::LastAnswer } else { LossOn::EveryAnswer };
    let dataset = Dataset::read(&data, &files.text, arguments.seq_len, loss_on)?;
    note_skipped(&dataset, talk);
    let run = Run::new(arguments, &files, &dataset)?;

    let device = arguments.device.open()?;
    let target = run.target(arguments, &device, talk)?;
    let recipe = run.recipe(arguments, &files, target.as_ref());
    let plan = KernelPlan { cache: CacheFormat::F32, ..device.default_plan() };
    let count = dataset.samples.len();
    let mut trainer = Trainer::new(&device, &plan, &recipe, dataset.samples, run.options.clone())?;
    if arguments.resume {
        state::restore(&state_path, &device, &mut trainer, &run.name)?;
    }
    std::fs::create_dir_all(&arguments.out).map_err(|source| Error::Write { path: arguments.out.clone(), source })?;
    talk.note(&format!("{count} samples; {}; {}", run.name, device.name()));

    let held_out = match (&arguments.held_out, &target) {
        (Some(path), Some(target)) => Some((HeldOut::read(target, path)?, target)),
        _ => None,
    };
    let begin = Instant::now();
    let limit = arguments.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let share_of_time = || limit.map_or(0.0, |limit| begin.elapsed().as_secs_f64() / limit.as_secs_f64());
    // Those of another model than the base are not what it was trained with.
    let embeddings = match arguments.freeze_embeddings && arguments.target_name() == arguments.model {
        true => Embeddings::OfTheTarget,
        false => Embeddings::Own(&files.text),
    };
    let checkpoint = |trainer: &Trainer| -> anyhow::Result<()> {
        draft::write(&arguments.out, &device, trainer.network(), &recipe, embeddings)?;
        state::save(&state_path, &device, trainer, &run.name)?;
        if let Some((held_out, target)) = &held_out {
            talk.note(&held_out.measure(&device, target, &arguments.out)?);
        }
        Ok(())
    };
    let mut recent = Recent::default();
    while !trainer.is_done() && share_of_time() < 1.0 && !interrupt::requested() {
        let progress = trainer.progress().max(share_of_time()).min(1.0);
        let report = trainer.step(progress)?;
        let step = report.position.step;
        recent.add(report);
        if step % REPORTED == 0 || trainer.is_done() {
            let done = trainer.progress().max(share_of_time()).clamp(1e-9, 1.0);
            talk.note(&recent.line(begin.elapsed().mul_f64((1.0 - done) / done), arguments.loss != Loss::TEXT));
            recent = Recent::default();
        }
        if step.is_multiple_of(arguments.every) {
            checkpoint(&trainer)?;
        }
    }
    checkpoint(&trainer)?;
    output::print(&format!("{} after {} steps", arguments.out.display(), trainer.position().step))?;
    Ok(interrupt::exit_code())
}

/// Steps from one line to the next.
const REPORTED: u64 = 10;

fn note_skipped(dataset: &Dataset, talk: Verbosity) {
    const SHOWN: usize = 3;
    for skipped in dataset.skipped.iter().take(SHOWN) {
        talk.note(&format!("skipped {}:{}: {}", skipped.path.display(), skipped.line, skipped.reason));
    }
    if dataset.skipped.len() > SHOWN {
        talk.note(&format!("skipped {} lines in all", dataset.skipped.len()));
    }
}

impl AdaptArguments {
    /// The model that the draft is for.
    fn target_name(&self) -> &str {
        self.teacher.as_ref().unwrap_or(&self.model)
    }
}

/// Refuses layers that the model in `files` does not have.
fn check_layers(layers: &[usize], files: &ModelFiles) -> anyhow::Result<()> {
    let count = files.config.layers;
    match layers.iter().find(|&&layer| layer >= count) {
        None => Ok(()),
        Some(layer) => {
            let reason = format!("{} has no layer {layer}; its layers are 0 to {}", files.name(), count - 1);
            Err(usage("--layers", reason))
        }
    }
}

/// Refuses states that the model in `files` does not have.
fn check_states(layers: &[i32], files: &ModelFiles) -> anyhow::Result<()> {
    let count = files.config.layers as i32;
    match TargetLayers::new(layers.to_vec(), files.config.hidden_size).states(files.config.layers) {
        Ok(_) => Ok(()),
        Err(state) => {
            let reason = format!("{} has no state {state}; it has 0 to {count} and -1 to {}", files.name(), -count - 1);
            Err(usage("--target-layers", reason))
        }
    }
}

/// A run's settings, derived from the arguments.
struct Run {
    layers: Vec<usize>,
    mask_token: u32,
    vocabulary: Option<Vec<u32>>,
    options: TrainingOptions,
    /// All that a resumed run must share.
    name: String,
}

impl Run {
    fn new(arguments: &AdaptArguments, files: &ModelFiles, dataset: &Dataset) -> anyhow::Result<Run> {
        let config = &files.config;
        let layers = match arguments.layers.is_empty() {
            true => (0..config.layers).collect(),
            false => arguments.layers.clone(),
        };
        check_layers(&layers, files)?;
        let first_unused = files.text.tokenizer.vocab_size();
        let unused = (arguments.freeze_embeddings || first_unused < config.vocab_size).then_some(first_unused as u32);
        let mask_token = arguments.mask_token.or(config.mask_token).or(unused).ok_or_else(|| {
            let reason = format!("every id of {} is a token; name one that its texts never hold", files.name());
            usage("--mask-token", reason)
        })?;
        if !arguments.freeze_embeddings && mask_token as usize >= config.vocab_size {
            return Err(Error::TokenRange { what: "mask token", id: mask_token, vocab: config.vocab_size }.into());
        }
        let vocabulary =
            arguments.draft_vocabulary.map(|count| most_frequent(&dataset.samples, count, &files.text.stop_tokens));
        let retention = CodRetention {
            segments: usize::from(arguments.train_len),
            ratio: arguments.retain,
            least: arguments.retain_min,
        };
        for (flag, share) in [
            ("--retain", retention.ratio),
            ("--retain-min", retention.least),
            ("--state-dropout", arguments.state_dropout),
            ("--floor", arguments.floor),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(usage(flag, format!("{share} is not between 0 and 1")));
            }
        }
        let options = TrainingOptions {
            retention,
            optimizer: OptimizerOptions {
                learning_rate: arguments.lr,
                weight_decay: arguments.weight_decay,
                moments: arguments.moments,
                ..OptimizerOptions::default()
            },
            epochs: arguments.epochs,
            batch_rows: arguments.batch_tokens,
            warmup: arguments.warmup,
            schedule: arguments.schedule,
            floor: arguments.floor,
            state_dropout: if arguments.target_layers.is_empty() { 0.0 } else { arguments.state_dropout },
            seed: arguments.seed,
        };
        let tokens: usize = dataset.samples.iter().map(|sample| sample.tokens.len()).sum();
        let words = vocabulary.as_ref().map_or(config.vocab_size, Vec::len);
        let listed = |layers: &[usize]| layers.iter().map(usize::to_string).collect::<Vec<_>>().join("+");
        let reading = match arguments.target_layers.as_slice() {
            [] => String::new(),
            states => {
                let states: Vec<String> = states.iter().map(i32::to_string).collect();
                let (states, dropout) = (states.join(","), arguments.state_dropout);
                format!(" beside states {states} of {} in all but {dropout} of samples", arguments.target_name())
            }
        };
        let name = format!(
            "{} layers of {}{reading}, {words} tokens to propose, mask {mask_token}, {tokens} tokens to read, {} at once, {} to \
             {} rows kept, learning rate {}, decay {}, moments in {:?}, steps of {} rows in passes of {}, seed {}, after {}",
            listed(&layers),
            files.name(),
            retention.segments,
            retention.ratio,
            retention.least,
            arguments.lr,
            arguments.weight_decay,
            arguments.moments,
            arguments.batch_tokens,
            arguments.pass_rows,
            arguments.seed,
            if arguments.loss == Loss::TEXT { "the text" } else { arguments.target_name() },
        );
        Ok(Run { layers, mask_token, vocabulary, options, name })
    }

    /// The model that the draft is for, if there is something to ask it.
    fn target(&self, arguments: &AdaptArguments, device: &Device, talk: Verbosity) -> anyhow::Result<Option<Model>> {
        if arguments.held_out.is_none() && arguments.loss == Loss::TEXT && arguments.target_layers.is_empty() {
            return Ok(None);
        }
        let files = load::open(arguments.target_name(), &arguments.device, talk)?;
        check_states(&arguments.target_layers, &files)?;
        Ok(Some(load::upload(device, files, LoadOptions::default(), talk)?))
    }

    fn recipe<'a>(
        &'a self,
        arguments: &'a AdaptArguments,
        files: &'a ModelFiles,
        target: Option<&'a Model>,
    ) -> NetworkOptions<'a> {
        NetworkOptions {
            config: &files.config,
            checkpoint: &*files.checkpoint,
            layers: &self.layers,
            mask_token: self.mask_token,
            freeze_embeddings: arguments.freeze_embeddings,
            vocabulary: self.vocabulary.as_deref(),
            rows: arguments.pass_rows,
            positions: arguments.seq_len,
            teacher: target.map(|target| &target.weights),
            loss: arguments.loss,
            target_layers: &arguments.target_layers,
        }
    }
}
