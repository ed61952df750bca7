//! `pard completions` and `pard man`: what shells and manuals want to know, from the arguments' own definition.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use pard::Error;

use crate::output;

#[derive(Args)]
pub struct CompletionsArguments {
    /// The shell
    pub shell: clap_complete::Shell,
}

#[derive(Args)]
pub struct ManArguments {
    /// Folder for the pages: pard.1, pard-generate.1 and so on
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// Prints the completions of `command` for a shell.
pub fn completions(arguments: &CompletionsArguments, mut command: Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "pard", &mut script);
    output::print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a manual page for each command of `command`.
pub fn man(arguments: &ManArguments, command: Command) -> anyhow::Result<ExitCode> {
    let failed = |source| Error::Write { path: arguments.folder.clone(), source };
    std::fs::create_dir_all(&arguments.folder).map_err(failed)?;
    clap_mangen::generate_to(command, &arguments.folder).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}
