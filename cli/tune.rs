//! `pard tune`: measures a model's row kernels on this adapter, keeps the fastest, and shows how flat passes are.

use std::cell::Cell;
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use pard::Error;
use pard::checkpoint::resolve::DEFAULT_MODEL;
use pard::low_level::ops::{MAX_ROWS, Variant};
use pard::model::{Choice, Measured, Model, Tuning};
use serde_json::json;

use crate::args::{DeviceArguments, MemoryArguments};
use crate::output::{self, Verbosity};
use crate::{interrupt, load};

#[derive(Args)]
pub struct TuneArguments {
    /// The model: `smollm2`, a folder, a .gguf file, or a repository of the Hugging Face hub (`owner/name[:Q4_K_M]`)
    #[arg(short, long, default_value = DEFAULT_MODEL)]
    pub model: String,
    /// Measure this draft of the model instead; needed for one that has no embeddings of its own
    #[arg(short, long, value_name = "MODEL")]
    pub draft: Option<String>,
    #[command(flatten)]
    pub memory: MemoryArguments,
    #[command(flatten)]
    pub device: DeviceArguments,
    /// Forget what was measured before, and measure nothing
    #[arg(long)]
    pub forget: bool,
    /// Print one JSON object in place of the table
    #[arg(long)]
    pub json: bool,
    /// Print no notices and progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// Runs the command.
pub fn run(arguments: &TuneArguments) -> anyhow::Result<ExitCode> {
    let talk = Verbosity::unless(arguments.quiet);
    let folder = Model::tuning_folder().context("there is no home folder to keep the table in; set PARD_CACHE")?;
    if !arguments.forget {
        output::check_folder(&folder)?;
    }
    let mut model = upload(arguments, talk)?;
    let path = Tuning::path(&folder, &model.weights);
    if arguments.forget {
        let said = if Tuning::forget(&folder, &model.weights)? { "forgotten" } else { "nothing was measured" };
        talk.note(&format!("{}: {said}", path.display()));
        return Ok(ExitCode::SUCCESS);
    }

    interrupt::listen()?;
    let bar = talk.bar("measuring".to_owned(), "{msg} {wide_bar} {percent:>3} % {eta}");
    bar.set_length(1000);
    let is_shown = std::io::stderr().is_terminal();
    let told = Cell::new(0);
    let keep_going = |done: f64| {
        bar.set_position((done * 1000.0) as u64);
        let tenths = (done * 10.0) as u64;
        if !is_shown && tenths > told.replace(told.get().max(tenths)) {
            talk.note(&format!("measuring: {} %", tenths * 10));
        }
        !interrupt::requested()
    };
    let mut measured = Measured::default();
    let tuning = loop {
        let known = measured.left_out().len();
        let outcome = Tuning::measure_on(&mut model.weights, &mut measured, &keep_going);
        for left in &measured.left_out()[known..] {
            let [rows, columns] = left.shape();
            talk.note(&format!("without {} of {rows} x {columns}: {}", name(left.variant()), left.reason()));
        }
        match outcome {
            Ok(tuning) => break tuning,
            // The variant that cost the device is known, and not tried again.
            Err(Error::DeviceLost { .. }) if measured.left_out().len() > known => {
                drop(model);
                model = upload(arguments, talk)?;
            }
            Err(error) => return Err(error.into()),
        }
    };
    bar.finish_and_clear();
    let Some(tuning) = tuning else {
        talk.note("ended by Ctrl-C; nothing was kept");
        return Ok(interrupt::exit_code());
    };
    let path = tuning.save(&folder, &model.weights)?;
    match arguments.json {
        true => output::print(&as_json(&model, &tuning).to_string())?,
        false => output::print(&as_text(&model, &tuning))?,
    }
    talk.note(&format!("kept in {}", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// Opens the adapter and loads the model on it that is to be measured.
fn upload(arguments: &TuneArguments, talk: Verbosity) -> anyhow::Result<Model> {
    let files = load::open(&arguments.model, &arguments.device, talk)?;
    let open_draft = |name| load::open_draft(name, &files, &arguments.device, talk);
    let draft = arguments.draft.as_deref().map(open_draft).transpose()?;
    let device = arguments.device.open()?;
    let usual = arguments.memory.load_options();
    let options = usual.ignore_tuning(true);
    Ok(match draft {
        None => load::upload(&device, files, options, talk)?,
        Some(draft) => {
            let target = load::upload(&device, files, usual, talk)?;
            load::upload_draft(&device, draft, &target, options, talk)?
        }
    })
}

/// A choice as the table names it: the variant, what it gains, and whether it was measured for this very number of rows.
fn reasoned(choice: &Choice) -> String {
    let gain = ((1.0 - choice.share) * 100.0).round() as i64;
    let gain = if gain > 0 { format!(" -{gain}%") } else { String::new() };
    format!("{}{}{gain}", if choice.measured { "" } else { "~" }, name(choice.variant))
}

/// A variant as the table names it.
fn name(variant: Variant) -> String {
    let uniform = if variant.uniform { "u" } else { "" };
    let ahead = if variant.ahead { "a" } else { "" };
    format!("{}x{}{uniform}{ahead}", variant.rows, variant.blocks)
}

fn seconds(tuning: &Tuning) -> Vec<f64> {
    let cost = tuning.pass_cost();
    (1..=MAX_ROWS).map(|rows| cost.of(rows as f64)).collect()
}

fn as_json(model: &Model, tuning: &Tuning) -> serde_json::Value {
    let variants: Vec<_> =
        tuning.choices().map(|(shape, choices)| json!({ "shape": shape, "variants": choices })).collect();
    json!({
        "model": model.name(),
        "adapter": model.weights.device().name(),
        "kernels": model.weights.plan().to_string(),
        "pass_seconds": seconds(tuning),
        "matrices": variants,
    })
}

/// T(rows) as a table with bars, and the variants that were chosen.
fn as_text(model: &Model, tuning: &Tuning) -> String {
    let seconds = seconds(tuning);
    let longest = seconds.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let shapes: Vec<_> = tuning.choices().collect();
    let heading = ["rows", "ms", "T(rows) / T(1)"].map(str::to_owned).into_iter();
    let heading = heading.chain(shapes.iter().map(|([rows, columns], _)| format!("{rows} x {columns}")));
    let mut table = vec![heading.collect::<Vec<_>>()];
    for (index, time) in seconds.iter().enumerate() {
        let mut row = vec![(index + 1).to_string(), format!("{:.2}", time * 1e3), format!("{:.2}", time / seconds[0])];
        row.extend(shapes.iter().map(|(_, choices)| reasoned(&choices[index])));
        table.push(row);
    }
    let table = output::table(&table);
    let bars = seconds.iter().map(|time| "#".repeat((time / longest * 40.0).round().max(1.0) as usize));
    let with_bars: Vec<String> = table
        .lines()
        .zip(std::iter::once(String::new()).chain(bars))
        .map(|(line, bar)| format!("{line}  {bar}").trim_end().to_owned())
        .collect();
    let legend = match shapes.is_empty() {
        true => "",
        false => {
            "\n\nunder each matrix: rows held in registers x weight rows per lane, u where the rows are read as a uniform, a \
             where the next weights are asked for ahead; how much less time that takes than the usual variant, which is \
             kept where none is 3% faster; ~ where the number of rows was not measured, and takes what the next larger \
             one takes"
        }
    };
    format!(
        "{}: {} of weights, read at {:.2} GB/s by a pass of one row\n{}; {}\n\n{}{legend}",
        model.name(),
        output::bytes(model.weights.bytes()),
        model.weights.bytes() as f64 / seconds[0] / 1e9,
        model.weights.device().name(),
        model.weights.plan(),
        with_bars.join("\n"),
    )
}
