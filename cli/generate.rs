//! `pard generate`: one prompt, one answer.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use pard::Error;
use pard::decoding::Limits;
use serde_json::json;

use crate::answer::{
    Begin, answer, drafts_json, joined, logprobs_json, logprobs_lines, sampling_json, statistics_json, summary,
};
use crate::args::{DecodingArguments, StyleArguments};
use crate::load::LoadedFiles;
use crate::output::Verbosity;
use crate::{interrupt, output, prompt};

/// Tokens of an answer, unless told otherwise.
const DEFAULT_TOKENS: usize = 256;

#[derive(Args)]
pub struct GenerateArguments {
    /// The prompt; without -p and --file it is read from standard input
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file")]
    pub prompt: Option<String>,
    /// Read the prompt from a file (`-`: standard input); one line end at its end is dropped
    #[arg(short, long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub style: StyleArguments,
    #[command(flatten)]
    pub decoding: DecodingArguments,
    /// Print one JSON object in place of the text
    #[arg(long)]
    pub json: bool,
    /// Print no notices, progress and statistics
    #[arg(short, long)]
    pub quiet: bool,
}

/// Runs the command.
pub fn run(arguments: &GenerateArguments) -> anyhow::Result<ExitCode> {
    let talk = Verbosity::unless(arguments.quiet);
    // All that can be wrong without a device is found out before anything is uploaded.
    let decoding = &arguments.decoding;
    let prepared = LoadedFiles::open(decoding, talk)?;
    let prompt = prompt::read(arguments.prompt.as_deref(), arguments.file.as_deref())?;
    let tokens = prompt.tokens(&prepared.files.target.text, &arguments.style)?;
    prompt::note_thinking(&prepared.files.target.text, arguments.style.thinking, talk);
    let context = prepared.context;
    if tokens.len() >= context {
        return Err(Error::ContextFull { tokens: tokens.len(), context }.into());
    }

    let (models, mut sequence) = prepared.upload(&decoding.models.device.open()?, decoding, talk)?;
    interrupt::listen()?;
    let limits = Limits::default()
        .max_tokens(decoding.max_tokens.unwrap_or(DEFAULT_TOKENS))
        .min_tokens(decoding.min_tokens)
        .stop(decoding.stop.clone());
    let mut shown = false;
    let show = |piece: &str| {
        if arguments.json {
            return Ok(());
        }
        shown = true;
        let mut out = io::stdout().lock();
        out.write_all(piece.as_bytes())?;
        out.flush()
    };
    let answer = answer(&mut sequence, &models.target, &tokens, limits, Begin::Anew, show);
    models.keep_measured(&sequence);
    // Ends the line of the text written so far, so that an error message begins a new one.
    if shown || (answer.is_ok() && !arguments.json) {
        output::print("")?;
    }
    let answer = answer?;
    if arguments.json {
        let report = json!({
            "text": answer.text,
            "prompt_ids": tokens,
            "output_ids": answer.output,
            "method": sequence.options().proposers(),
            "k": drafts_json(sequence.options().drafts),
            "mean_k": answer.statistics.mean_drafts(),
            "sampling": sampling_json(&sequence.options().sampling),
            "acceptance": sequence.options().acceptance.name(),
            "logprobs": decoding.logprobs.map(|_| logprobs_json(&models.target, &answer.logprobs)),
            "finish_reason": answer.finish.name(),
            "plan": models.plan(context),
        });
        output::print(&joined(report, statistics_json(answer.output.len(), &answer.statistics)).to_string())?;
    }
    if !arguments.json && !answer.logprobs.is_empty() {
        talk.note(&logprobs_lines(&models.target, &answer.logprobs));
    }
    talk.note(&summary(&sequence, &answer));
    Ok(interrupt::exit_code())
}
