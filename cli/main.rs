//! The command `pard`: arguments and printing; the work is the engine's.
//! Exit codes: 0 done (a closed pipe is no fault), 1 failed, 2 bad usage, 130 ended by Ctrl-C.

mod adapt;
mod answer;
mod args;
mod bench;
mod chat;
mod devices;
mod doctor;
mod fit;
mod generate;
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
mod tune;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
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
        Command::Pull(arguments) => models::pull(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Completions(arguments) => shell::completions(&arguments),
        Command::Man(arguments) => shell::man(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let hint = hint::hint(&error).map(|hint| format!("; {hint}")).unwrap_or_default();
            output::note(&format!("error: {}{hint}", output::one_line(&error)));
            let is_usage = matches!(error.downcast_ref(), Some(pard_engine::Error::Option { .. }));
            ExitCode::from(if is_usage { 2 } else { 1 })
        }
    }
}
