//! `pard profile`: where the time of a prompt and of a round goes, kernel by kernel and by the device's own clock.

mod report;
pub mod trace;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use pard_engine::decoding::{DraftLength, Method, Sequence, SequenceOptions};
use pard_engine::gpu::{Device, Profile};
use pard_engine::ops::PeakProbe;
use pard_engine::{Error, Result};

use crate::args::{ModelArguments, ProfileArguments};
use crate::interrupt;
use crate::load::{self, Files, Models};
use crate::output::{self, Verbosity};

use report::{Measured, Report};

/// Runs the command.
pub fn run(arguments: &ProfileArguments) -> anyhow::Result<ExitCode> {
    let talk = Verbosity::unless(arguments.quiet);
    let asked = drafted(&arguments.models);
    if asked.draft_device.is_some() {
        let reason = "a profile is of one device; leave it out".to_owned();
        return Err(Error::Option { option: "draft-device", reason }.into());
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
        let options = SequenceOptions { method, drafts, context, run_ahead, ..SequenceOptions::default() };
        let sequence = models.sequence(options)?;
        measured.push(measure(&device, sequence, &prompt, rounds, arguments.separate_passes)?);
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

/// One prompt and `rounds` rounds of `sequence`, all of whose kernels have run before.
fn measure(
    device: &Device,
    mut sequence: Sequence,
    prompt: &[u32],
    rounds: usize,
    separate_passes: bool,
) -> Result<Measured> {
    let keep_going = || !interrupt::requested();
    sequence.warm_up()?;
    sequence.start(prompt, &keep_going)?;
    sequence.round()?;

    let profiled = |work: &mut dyn FnMut() -> Result<()>| -> Result<(Profile, f64)> {
        device.start_profile(separate_passes)?;
        let begin = Instant::now();
        let done = work();
        let seconds = begin.elapsed().as_secs_f64();
        let profile = device.end_profile()?;
        done.map(|()| (profile, seconds))
    };
    let prefill = profiled(&mut || sequence.start(prompt, &keep_going))?;
    // The first round reads one known token where a later one may read several.
    sequence.round()?;
    let decode = profiled(&mut || {
        for _ in 0..rounds {
            if keep_going() {
                sequence.round()?;
            }
        }
        Ok(())
    })?;
    Ok(Measured { options: sequence.options().clone(), rounds, prompt_tokens: prompt.len(), prefill, decode })
}
