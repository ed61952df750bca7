//! `pard profile`: where the time of a prompt and of a round goes, kernel by kernel and by the device's own clock.

mod report;
pub mod trace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, value_parser};
use pard::decoding::MAX_DRAFTS;
use pard::decoding::{DraftLength, Method, SamplingParams, Sequence, SequenceOptions};
use pard::error::OptionName;
use pard::low_level::gpu::{Device, Profile};
use pard::low_level::ops::PeakProbe;
use pard::{Error, Result};

use crate::args::ModelArguments;
use crate::grammar::GrammarArguments;
use crate::interrupt;
use crate::load::{self, Files, Models};
use crate::output::{self, Verbosity};
use crate::usage::usage;

use report::{Measured, Report};

#[derive(Args)]
pub struct ProfileArguments {
    #[command(flatten)]
    pub models: ModelArguments,
    /// Tokens proposed per round, 0 (none) to 16
    #[arg(short = 'k', long, value_name = "K", default_value_t = 8, value_parser = value_parser!(u8).range(..=MAX_DRAFTS as i64))]
    pub draft_len: u8,
    /// Tokens of the prompt, which has no meaning
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = value_parser!(u32).range(2..))]
    pub prompt_tokens: u32,
    /// Rounds that are timed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Rounds of an answer that keeps to a grammar: they end where the answer does
    #[command(flatten)]
    pub grammar: GrammarArguments,
    /// Write a trace that Perfetto and Chrome show
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Take kernels from this folder where it holds them (kernels/matmul_rows.wgsl, pieces/weights/bf16.wgsl), without
    /// a rebuild
    #[arg(long, value_name = "DIR")]
    pub shaders: Option<PathBuf>,
    /// Give each kernel a pass of its own, as adapters without timestamps inside passes need it
    #[arg(long)]
    pub separate_passes: bool,
    /// Print one JSON object in place of the tables
    #[arg(long)]
    pub json: bool,
    /// Print no notices and progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// Runs the command.
pub fn run(arguments: &ProfileArguments) -> anyhow::Result<ExitCode> {
    let talk = Verbosity::unless(arguments.quiet);
    let asked = drafted(&arguments.models);
    if asked.draft_device.is_some() {
        return Err(usage("--draft-device", "a profile is of one device; leave it out"));
    }
    let drafts = usize::from(arguments.draft_len);
    let files = Files::open(&asked, drafts > 0, talk)?;
    let method = if drafts == 0 { Method::Ar } else { files.methods().last().copied().unwrap_or(Method::Ar) };
    let rounds = arguments.rounds as usize;
    let needed = arguments.prompt_tokens as usize + (rounds + 2) * (drafts + 1);
    let context = load::context(&asked, &files, talk);
    if needed > context {
        return Err(Error::ContextFull { tokens: needed, context }.into());
    }
    let grammar = arguments.grammar.grammar();
    if let Some(grammar) = &grammar {
        files.target.text.check_grammar(grammar)?;
    }
    if let Some(path) = &arguments.trace {
        output::check_file(path)?;
    }
    let device = asked.device.open_with(arguments.shaders.as_deref(), talk)?;
    let models = files.upload(&device, &asked, context, talk)?;

    interrupt::listen()?;
    let bar = talk.bar("profiling".to_owned(), "{msg} {spinner}");
    bar.enable_steady_tick(Duration::from_millis(100));
    let rates = PeakProbe::new(&device, models.target.weights.plan(), |index| index)?.measure(&device)?;
    let prompt = prompt(&models, arguments.prompt_tokens as usize);
    let mut measured = Vec::new();
    let methods = if method == Method::Ar { vec![Method::Ar] } else { vec![Method::Ar, method] };
    for method in methods {
        // Without a round that runs ahead each is seen by itself.
        let (drafts, run_ahead) = (DraftLength::Fixed(drafts), Some(false));
        let options = SequenceOptions::default().method(method).drafts(drafts).context(context).run_ahead(run_ahead);
        let sampling = SamplingParams::default().grammar(grammar.clone());
        let sequence = models.sequence(options.sampling(sampling))?;
        let ends = &models.target.text.stop_tokens;
        measured.push(measure(&device, sequence, &prompt, rounds, ends, arguments.separate_passes)?);
        if interrupt::requested() {
            return Ok(interrupt::exit_code());
        }
    }
    bar.finish_and_clear();

    let report = Report { models: &models, context, rates, measured: &measured };
    match arguments.json {
        true => output::print(&report.as_json().to_string())?,
        false => output::print(&report.as_text())?,
    }
    if let Some(path) = &arguments.trace {
        let text = trace::chrome(&measured).to_string();
        std::fs::write(path, text).map_err(|source| Error::Write { path: path.clone(), source })?;
        talk.note(&format!("the trace is in {}; https://ui.perfetto.dev and chrome://tracing show it", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The arguments with a draft where none was named: the target, with any mask token. What it proposes is of no use, but
/// it takes the time that a draft of its size takes.
fn drafted(arguments: &ModelArguments) -> ModelArguments {
    let mut arguments = arguments.clone();
    if arguments.draft.is_none() {
        arguments.draft = Some(arguments.model.clone());
        arguments.mask_token = Some(0);
    }
    arguments
}

/// Tokens without a meaning: the time does not depend on it.
fn prompt(models: &Models, tokens: usize) -> Vec<u32> {
    let vocab = models.target.weights.config().vocab_size;
    (0..tokens).map(|index| ((index * 7919 + 13) % vocab) as u32).collect()
}

/// One prompt and `rounds` rounds of `sequence`, all of whose kernels have run before; fewer if one of `ends` ends an answer that
/// keeps to a grammar, after which nothing can follow.
fn measure(
    device: &Device,
    mut sequence: Sequence,
    prompt: &[u32],
    rounds: usize,
    ends: &[u32],
    separate_passes: bool,
) -> Result<Measured> {
    let keep_going = || !interrupt::requested();
    sequence.warm_up()?;
    sequence.start_while(prompt, &keep_going)?;
    sequence.round()?;

    let profiled = |work: &mut dyn FnMut() -> Result<()>| -> Result<(Profile, f64)> {
        device.start_profile(separate_passes)?;
        let begin = Instant::now();
        let done = work();
        let seconds = begin.elapsed().as_secs_f64();
        let profile = device.end_profile()?;
        done.map(|()| (profile, seconds))
    };
    let prefill = profiled(&mut || sequence.start_while(prompt, &keep_going))?;
    // The first round reads one known token where a later one may read several.
    let is_constrained = sequence.options().sampling.grammar.is_some();
    let is_end = |tokens: &[u32]| is_constrained && tokens.iter().any(|token| ends.contains(token));
    let mut ended = is_end(sequence.round()?);
    if ended {
        let reason = "an answer of it ends within its first round, and leaves none to be timed".to_owned();
        return Err(Error::Option { option: OptionName::Grammar, reason });
    }
    let mut done = 0;
    let decode = profiled(&mut || {
        while done < rounds && !ended && keep_going() {
            ended = is_end(sequence.round()?);
            done += 1;
        }
        Ok(())
    })?;
    let options = sequence.options().clone();
    Ok(Measured { options, rounds: done.max(1), prompt_tokens: prompt.len(), prefill, decode })
}
