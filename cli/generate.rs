//! `pard generate`: one prompt, one answer.

use std::io::{self, Write};
use std::process::ExitCode;

use pard_engine::Error;
use pard_engine::decoding::{Decoder, DecoderOptions, Drafts, Limits, Method, Speculation, Statistics};
use serde_json::json;

use crate::answer::{Answer, answer, drafts_json, joined, sampling_json, statistics_json, tokens_per_second};
use crate::args::GenerateArguments;
use crate::load::{self, Files};
use crate::output::Talk;
use crate::{interrupt, output, prompt};

/// Runs the command.
pub fn run(arguments: &GenerateArguments) -> anyhow::Result<ExitCode> {
    let models = &arguments.models;
    let drafts = models.drafts(arguments.draft_len);
    let plain = drafts.most() == 0 || arguments.method == Some(Method::Ar);
    let speculates =
        arguments.method.is_some_and(|method| method != Method::Ar) && arguments.draft_len != Some(Drafts::Fixed(0));
    models.check_draft("--method", speculates)?;
    models.check_draft("--draft-len", !plain)?;
    let talk = Talk::unless(arguments.quiet);
    let prompt = prompt::read(arguments)?;

    // All that can be wrong without a device is found out before anything is uploaded.
    let files = Files::open(models, !plain, talk)?;
    let method = arguments.method.filter(|_| !plain).or(files.methods().last().copied()).unwrap_or(Method::Ar);
    files.check(method)?;
    let tokens = prompt.tokens(&files.target.text, &arguments.style)?;
    let context = load::context(models, &files, talk);
    if tokens.len() >= context {
        return Err(Error::ContextFull { tokens: tokens.len(), context }.into());
    }

    let models = files.upload(&models.device.open()?, models, context, talk)?;
    let (run_ahead, sampling) = (arguments.run_ahead, arguments.sampling.options());
    let mut decoder = models.decoder(DecoderOptions { method, drafts, context, run_ahead, sampling })?;
    models.prepare(&mut decoder, talk)?;
    interrupt::listen()?;
    let limits = Limits { max_tokens: arguments.max_tokens, stop: arguments.stop.clone() };
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
    let answer = answer(&mut decoder, &models.target, &tokens, limits, show);
    // What was written so far stays, and what is said of an error begins a line of its own.
    if shown || (answer.is_ok() && !arguments.json) {
        output::print("")?;
    }
    let answer = answer?;
    if arguments.json {
        let report = json!({
            "text": answer.text,
            "prompt_ids": tokens,
            "output_ids": answer.output,
            "method": decoder.options().method.name(),
            "k": drafts_json(decoder.options().drafts),
            "mean_k": answer.statistics.mean_drafts(),
            "sampling": sampling_json(&decoder.options().sampling),
            "finish_reason": answer.finish.name(),
            "plan": models.plan(context),
        });
        output::print(&joined(report, statistics_json(answer.output.len(), &answer.statistics)).to_string())?;
    }
    talk.note(&summary(&decoder, &answer));
    Ok(interrupt::exit_code())
}

/// The statistics on one line.
fn summary(decoder: &Decoder, answer: &Answer) -> String {
    let (statistics, tokens, options) = (&answer.statistics, answer.output.len(), decoder.options());
    let seconds = |time: std::time::Duration| time.as_secs_f64();
    let method = match options.method {
        Method::Ar => "ar".to_owned(),
        method if options.drafts == Drafts::Auto => {
            format!("{}, K = auto{}", method.name(), choice(decoder, statistics))
        }
        method => format!("{}, K = {}", method.name(), options.drafts),
    };
    format!(
        "prompt: {} tokens in {:.2} s; answer: {tokens} tokens in {:.2} s, {:.1} tokens/s; {method}: {} rounds of {:.2} \
         tokens; ended by: {}",
        statistics.prompt_tokens,
        seconds(statistics.prefill),
        seconds(statistics.decode),
        tokens_per_second(tokens, statistics),
        statistics.rounds,
        statistics.tokens_per_round(),
        answer.finish.name(),
    )
}

/// What choosing K led to, and why speculation was off where it was.
fn choice(decoder: &Decoder, statistics: &Statistics) -> String {
    let why = match decoder.speculation() {
        None | Some(Speculation::Pays) => "",
        Some(Speculation::TooSlow) => ": it cannot pay here, since a draft and a pass over several rows cost too much",
        Some(Speculation::TooRarelyAccepted) => ": too few proposals were accepted to pay",
    };
    let (mean, off, rounds) = (statistics.mean_drafts(), statistics.plain_rounds(), statistics.rounds);
    format!(" (mean {mean:.1}; speculation off in {off} of {rounds} rounds{why})")
}
