//! `pard completions` and `pard man`: what shells and manuals want to know, from the arguments' own definition.

use std::process::ExitCode;

use clap::CommandFactory;
use pard_engine::Error;

use crate::args::{Arguments, CompletionsArguments, ManArguments};
use crate::output;

/// Prints the completions for a shell.
pub fn completions(arguments: &CompletionsArguments) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "pard", &mut script);
    output::print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a manual page for each command.
pub fn man(arguments: &ManArguments) -> anyhow::Result<ExitCode> {
    let failed = |source| Error::Write { path: arguments.folder.clone(), source };
    std::fs::create_dir_all(&arguments.folder).map_err(failed)?;
    clap_mangen::generate_to(Arguments::command(), &arguments.folder).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}
