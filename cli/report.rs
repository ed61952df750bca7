//! `pard report`: what an adapter reaches, measured in the order of its worth until the time is up, as JSON, a Markdown
//! row, a trace, and a page with plots.

mod compare;
mod items;
mod page;
mod plots;
mod record;
mod tables;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, value_parser};
use pard::Error;
use pard::low_level::gpu::Device;
use serde_json::Value;

use crate::args::DeviceArguments;
use crate::interrupt;
use crate::output::{self, Verbosity};

use compare::Other;
use record::Record;

#[derive(Args)]
pub struct ReportArguments {
    /// A model whose rounds are timed, named as elsewhere [default: smollm2, where it is there]
    #[arg(short, long)]
    model: Option<String>,
    /// The model that proposes tokens, named likewise; without it only AR is timed
    #[arg(short, long, value_name = "MODEL")]
    draft: Option<String>,
    /// Begin nothing new after so many seconds; what matters most is measured first
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = value_parser!(u32).range(1..))]
    time_limit: u32,
    /// Folder for report.json, report.html, row.md and trace.json
    #[arg(long, value_name = "FOLDER", default_value = "pard-report")]
    out: PathBuf,
    /// Show another report.json, or the output of `llama-bench -o json`, beside it
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Measure nothing, and write the page and the row of this report.json anew
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "draft", "time_limit", "device", "backend"])]
    from: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArguments,
    /// Print report.json in place of the tables
    #[arg(long)]
    json: bool,
    /// Print no notices
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
pub fn run(arguments: &ReportArguments) -> anyhow::Result<ExitCode> {
    let talk = Verbosity::unless(arguments.quiet);
    // A file that cannot be compared with is told of before minutes of measuring.
    let other = arguments.compare.as_deref().map(Other::open).transpose()?;
    let document = match &arguments.from {
        Some(path) => compare::open_report(path)?,
        None => measure(arguments, talk)?,
    };
    std::fs::create_dir_all(&arguments.out).map_err(|source| Error::Write { path: arguments.out.clone(), source })?;
    output::replace_file(&arguments.out.join("row.md"), &tables::markdown_row(&document))?;
    output::replace_file(&arguments.out.join("report.html"), &page::page(&document, other.as_ref())?)?;
    match arguments.json {
        true => output::print(&document.to_string())?,
        false => output::print(&tables::text(&document, other.as_ref()))?,
    }
    talk.note(&format!("the page is {}", arguments.out.join("report.html").display()));
    Ok(interrupt::exit_code())
}

/// Measures until the time is up. What there is by then is in the folder, whatever comes between.
fn measure(arguments: &ReportArguments, talk: Verbosity) -> anyhow::Result<Value> {
    let device: Device = arguments.device.open()?;
    interrupt::listen()?;
    let limit = Duration::from_secs(arguments.time_limit.into());
    let mut record = Record::new(&arguments.out, limit, talk)?;
    items::measure(&device, arguments, &mut record)?;
    record.finish()
}
