//! The command `pard`: arguments and printing; the work is the engine's.
//! Exit codes: 0 done (a closed pipe is no fault), 1 failed, 2 bad usage, 130 ended by Ctrl-C.

mod adapt;
mod answer;
mod args;
mod bench;
mod chat;
mod devices;
mod doctor;
mod drafts;
mod fit;
mod generate;
mod grammar;
mod hint;
mod inspect;
mod interrupt;
mod load;
mod models;
mod output;
mod profile;
mod prompt;
mod report;
mod respond;
#[cfg(feature = "server")]
mod serve;
mod shell;
mod terminal;
mod text_file;
mod tune;
mod usage;
mod welcome;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Language models on any GPU, by parallel-draft speculative decoding.
#[derive(Parser)]
#[command(name = "pard", version, arg_required_else_help = true, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the answer to a prompt
    Generate(generate::GenerateArguments),
    /// Talk with a model
    Chat(chat::ChatArguments),
    /// Answer requests over HTTP, as OpenAI's interface has them
    #[cfg(feature = "server")]
    Serve(Box<serve::ServeArguments>),
    /// Time the decoding methods side by side and compare their tokens; or, with --pp or --tg, one model's raw speed
    Bench(bench::BenchArguments),
    /// Write the responses to many prompts, several at once, to a file
    Respond(respond::RespondArguments),
    /// Show where the time goes, kernel by kernel
    Profile(profile::ProfileArguments),
    /// Measure the row kernels on this adapter and keep the fastest for each number of rows
    Tune(tune::TuneArguments),
    /// Measure what this adapter reaches, and write a page of it
    Report(Box<report::ReportArguments>),
    /// Make a PARD draft of a model
    Adapt(Box<adapt::AdaptArguments>),
    /// List the models in the local caches
    Models(models::ModelsArguments),
    /// List the published drafts that serve a model
    Drafts(drafts::DraftsArguments),
    /// Fetch a model from the Hugging Face hub, or its newest revision
    Pull(models::PullArguments),
    /// Check the driver, the adapter, the kernels and the default model, and say what to do
    Doctor(doctor::DoctorArguments),
    /// List the adapters and say which one would be used
    Devices(devices::DevicesArguments),
    /// Say what memory models need on an adapter, what fits it, and how fast they will be
    Fit(fit::FitArguments),
    /// Show what a model is made of and the memory it needs
    Inspect(inspect::InspectArguments),
    /// Print the completions for a shell
    Completions(shell::CompletionsArguments),
    /// Write the manual pages
    Man(shell::ManArguments),
}

/// Ends the program with what is wrong with its arguments.
fn refuse(error: &clap::Error) -> ! {
    if error.kind() == clap::error::ErrorKind::InvalidUtf8 {
        // clap does not say which it is.
        let odd = std::env::args_os().find(|argument| argument.to_str().is_none()).unwrap_or_default();
        output::note(&format!("error: the argument {} is not UTF-8; models and texts are named so", odd.display()));
        std::process::exit(2);
    }
    error.exit()
}

fn main() -> ExitCode {
    silence_device_selection();
    if std::env::args_os().len() == 1 && io::stdout().is_terminal() {
        return finish(welcome::run());
    }
    let done = match Arguments::try_parse().unwrap_or_else(|error| refuse(&error)).command {
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Chat(arguments) => chat::run(&arguments),
        #[cfg(feature = "server")]
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Respond(arguments) => respond::run(&arguments),
        Command::Profile(arguments) => profile::run(&arguments),
        Command::Tune(arguments) => tune::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Devices(arguments) => devices::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Fit(arguments) => fit::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Adapt(arguments) => adapt::run(&arguments),
        Command::Models(arguments) => models::run(&arguments),
        Command::Drafts(arguments) => drafts::run(&arguments),
        Command::Pull(arguments) => models::pull(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Completions(arguments) => shell::completions(&arguments, Arguments::command()),
        Command::Man(arguments) => shell::man(&arguments, Arguments::command()),
    };
    finish(done)
}

/// Keeps Mesa's device-selection layer from writing "error: XDG_RUNTIME_DIR is invalid or not set in the environment." to
/// standard error for every process without a desktop session. The layer only sorts the adapters, which this program does
/// itself; where the user has told it how, it is left alone.
fn silence_device_selection() {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !["XDG_RUNTIME_DIR", "DRI_PRIME", "MESA_VK_DEVICE_SELECT"].into_iter().any(is_set) {
        // SAFETY: this is the first thing that the program does, and no other thread runs yet.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

/// The exit code, and the error that led to it on standard error.
fn finish(done: anyhow::Result<ExitCode>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let hint = hint::hint(&error).map(|hint| format!("; {hint}")).unwrap_or_default();
            let message = usage::with_flag(&error, &output::one_line(&error));
            output::note(&format!("error: {message}{hint}"));
            ExitCode::from(if usage::is_usage(&error) { 2 } else { 1 })
        }
    }
}
