//! `pard doctor`: whether this machine can run models, and what to do where it cannot.

use std::process::ExitCode;

use clap::Args;
use pard::checkpoint::ModelFiles;
use pard::checkpoint::resolve::DEFAULT_MODEL;
use pard::decoding::{DraftLength, Limits, MAX_DRAFTS, Method, Sequence, SequenceOptions, cache_positions};
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{AdapterReport, Device, KernelPlan, MatmulPath, adapters};
use pard::low_level::ops::{PeakProbe, check_products, check_row_invariance, check_values};
use pard::model::LoadOptions;
use pard::text::{Message, Rendering};
use serde_json::{Value, json};

use crate::answer::{Begin, answer, tokens_per_second};
use crate::args::DeviceArguments;
use crate::hint::FETCH_DEFAULT_MODEL;
use crate::output::{self, Verbosity};
use crate::{interrupt, load};

/// Limits that kernels need: bytes of a binding, invocations of a workgroup and its memory. WebGPU guarantees them.
const MIN_BINDING: u64 = 128 << 20;
const MIN_WORKGROUP: u32 = 256;
const MIN_MEMORY: u32 = 16 << 10;
/// Minimum read bandwidth of a discrete card, in bytes per second; a lower one means that something holds it back.
const SLOW_CARD: f64 = 50e9;
/// A question that the default model knows the answer to, whatever the rounding.
const QUESTION: &str = "What is the capital of France?";
const ANSWER: &str = "Paris";
/// The context of that conversation.
const CONTEXT: usize = 256;

/// Outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Warning,
    Failed,
    Skipped,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Good => "ok",
            State::Warning => "warning",
            State::Failed => "failed",
            State::Skipped => "skipped",
        }
    }
}

/// One thing that was looked at.
struct Check {
    name: &'static str,
    state: State,
    /// The finding.
    found: String,
    /// Advice on how to fix it.
    advice: Option<String>,
}

/// Result of a check: the finding if all is well, else the state, the problem and the advice.
type Finding = Result<String, (State, String, String)>;

fn warning(found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Err((State::Warning, found.into(), advice.into()))
}

fn failed(found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Err((State::Failed, found.into(), advice.into()))
}

/// The checks so far, which are shown as they come.
struct Report {
    checks: Vec<Check>,
    json: bool,
}

impl Report {
    fn add(&mut self, name: &'static str, finding: Finding) -> anyhow::Result<()> {
        let (state, found, advice) = match finding {
            Ok(found) => (State::Good, found, None),
            Err((state, found, advice)) => (state, found, Some(advice)),
        };
        let check = Check { name, state, found, advice };
        if !self.json {
            let mut text = format!("{:<8} {:<20} {}", check.state.name(), check.name, check.found);
            if let Some(advice) = &check.advice {
                text.push_str(&format!("\n{:30}{advice}", ""));
            }
            output::print(&text)?;
        }
        self.checks.push(check);
        Ok(())
    }

    fn skip(&mut self, names: &[&'static str], why: &str) -> anyhow::Result<()> {
        let state = State::Skipped;
        for &name in names {
            if !self.json {
                output::print(&format!("{:<8} {name:<20} {why}", state.name()))?;
            }
            self.checks.push(Check { name, state, found: why.to_owned(), advice: None });
        }
        Ok(())
    }

    fn count(&self, state: State) -> usize {
        self.checks.iter().filter(|check| check.state == state).count()
    }
}

#[derive(Args)]
pub struct DoctorArguments {
    /// The model that answers a question: `smollm2`, a folder, a .gguf file, or a repository of the Hugging Face hub
    /// (`owner/name[:Q4_K_M]`)
    #[arg(short, long, default_value = DEFAULT_MODEL)]
    pub model: String,
    #[command(flatten)]
    pub device: DeviceArguments,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(arguments: &DoctorArguments) -> anyhow::Result<ExitCode> {
    let mut report = Report { checks: Vec::new(), json: arguments.json };
    let (adapter, finding) = find_adapter(arguments);
    report.add("adapter", finding)?;
    let mut device = None;
    match adapter {
        None => report.skip(&["device", "limits"], "there is no adapter")?,
        Some(adapter) => {
            let finding = match arguments.device.open() {
                Ok(opened) => {
                    let checks = if opened.is_bare() { ", without the driver's bounds checks" } else { "" };
                    let found = format!("{}{checks}", opened.default_plan());
                    device = Some((opened, adapter.kind == "discrete"));
                    Ok(found)
                }
                Err(error) => failed(error.to_string(), "update the driver, or choose another adapter with --device"),
            };
            report.add("device", finding)?;
            report.add("limits", limits(&adapter))?;
        }
    }
    match &device {
        None => report.skip(&["kernels", "matrix units", "memory bandwidth"], "there is no device to run them on")?,
        Some((device, is_card)) => {
            report.add("kernels", kernels(device))?;
            match device.cooperative_tile() {
                None => report.skip(&["matrix units"], "the adapter has none that pard uses, and needs none")?,
                Some(tile) => report.add("matrix units", matrix_units(device, tile))?,
            }
            report.add("memory bandwidth", bandwidth(device, *is_card))?;
        }
    }
    let model = if arguments.model == DEFAULT_MODEL { "default model" } else { "model" };
    let (files, finding) = open(&arguments.model, &arguments.device);
    report.add(model, finding)?;
    match (device, files) {
        (Some((device, _)), Some(files)) => report.add("answer", question(&device, files, arguments))?,
        (_, files) => {
            let lacks = if files.is_none() { "model" } else { "device" };
            report.skip(&["answer"], &format!("there is no {lacks}"))?;
        }
    }
    finish(&report)
}

fn finish(report: &Report) -> anyhow::Result<ExitCode> {
    let [failures, warnings] = [State::Failed, State::Warning].map(|state| report.count(state));
    if report.json {
        let check = |check: &Check| {
            let (name, state) = (check.name, check.state.name());
            json!({ "name": name, "state": state, "found": check.found, "advice": check.advice })
        };
        let checks: Vec<Value> = report.checks.iter().map(check).collect();
        output::print(&json!({ "ok": failures == 0, "checks": checks }).to_string())?;
    } else {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        output::print(&match (failures, warnings) {
            (0, 0) => "all is well".to_owned(),
            (0, count) => format!("models run here; {count} warning{}", plural(count)),
            (count, _) => format!("{count} check{} failed", plural(count)),
        })?;
    }
    Ok(ExitCode::from(u8::from(failures > 0)))
}

/// The adapter that would be used.
fn find_adapter(arguments: &DoctorArguments) -> (Option<AdapterReport>, Finding) {
    let found = match adapters(&arguments.device.query()) {
        Ok(found) => found,
        Err(error) => {
            let asked = arguments.device.device.is_some()
                || arguments.device.backend.is_some()
                || ["WGPU_BACKEND", "WGPU_ADAPTER_NAME"]
                    .iter()
                    .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
            let advice = match asked {
                true => {
                    "ask for another one, or for none: --device, --backend, WGPU_BACKEND and WGPU_ADAPTER_NAME say which"
                }
                false if cfg!(target_os = "linux") => {
                    "install the driver of your card; `vulkaninfo --summary` (vulkan-tools) must list it. In a container \
                     pass the card on (--device /dev/dri, --gpus all). Without a card: mesa-vulkan-drivers"
                }
                false => "install the newest driver of your card",
            };
            return (None, failed(error.to_string(), advice));
        }
    };
    let others = found.len() - 1;
    let Some(adapter) = found.into_iter().find(|adapter| adapter.chosen) else {
        return (None, failed("none was chosen", "choose one with --device"));
    };
    let mut named = format!("{}, {}, {}, driver {}", adapter.name, adapter.kind, adapter.backend, adapter.driver);
    if let Some(compiler) = &adapter.shader_compiler {
        named.push_str(&format!(", shaders compiled by {compiler}"));
    }
    let finding = match adapter.kind {
        "software" if others > 0 => {
            warning(named, "this computes on the CPU; `pard devices` lists the others, --device takes one")
        }
        "software" => {
            let newer = if adapter.loops_over_lanes {
                "; without one, the software driver of Mesa 26 is two to three times as fast (Debian's backports have it)"
            } else {
                ""
            };
            let slow =
                "this computes on the CPU, which is slow. Is there a GPU in this machine? Then install its driver";
            warning(named, format!("{slow}{newer}"))
        }
        _ => Ok(named),
    };
    (Some(adapter), finding)
}

fn limits(adapter: &AdapterReport) -> Finding {
    let found = format!(
        "bindings of {}, workgroups of {} invocations and {} bytes",
        output::bytes(adapter.largest_binding),
        adapter.workgroup_size,
        adapter.workgroup_memory
    );
    let is_enough = adapter.largest_binding >= MIN_BINDING
        && adapter.workgroup_size >= MIN_WORKGROUP
        && adapter.workgroup_memory >= MIN_MEMORY;
    if is_enough {
        return Ok(found);
    }
    let least = output::bytes(MIN_BINDING);
    let found = format!("{found}; needed are {least}, {MIN_WORKGROUP} and {MIN_MEMORY}");
    failed(found, "update the driver, or choose another adapter with --device")
}

fn kernels(device: &Device) -> Finding {
    let plan = device.default_plan();
    if let Err(error) = check_values(device, &plan) {
        return failed(
            error.to_string(),
            "the driver computes wrongly: update it, or choose another adapter with --device",
        );
    }
    if let Err(error) = check_products(device, &plan) {
        return failed(error.to_string(), "update the driver; until then use --quantised-products float");
    }
    match check_row_invariance(device, &plan, MAX_DRAFTS + 1) {
        Ok(()) => Ok("they give the right values, and the same bits for every number of rows".to_owned()),
        Err(error) => failed(error.to_string(), "update the driver; until then decode with --method ar"),
    }
}

fn matrix_units(device: &Device, tile: u32) -> Finding {
    let plan = KernelPlan { products: MatmulPath::Cooperative { tile }, ..device.default_plan() };
    match check_products(device, &plan) {
        Ok(()) => Ok(format!("{}: they give what plain kernels give", plan.products)),
        Err(error) => warning(error.to_string(), "do not use --products cooperative with this driver"),
    }
}

fn bandwidth(device: &Device, is_card: bool) -> Finding {
    let rates =
        match PeakProbe::new(device, &device.default_plan(), |index| index).and_then(|yard| yard.measure(device)) {
            Ok(rates) => rates,
            Err(error) => {
                return warning(format!("not measured: {error}"), "the device must have timestamps and 256 MB free");
            }
        };
    let found = format!(
        "{:.1} GB/s; so a model of 1 GB writes {:.0} tokens/s at most without a draft",
        rates.read / 1e9,
        rates.read / 1e9
    );
    if is_card && rates.read < SLOW_CARD {
        return warning(found, "slow for a card: is it busy, saving power, or on battery?");
    }
    Ok(found)
}

fn open(name: &str, device: &DeviceArguments) -> (Option<ModelFiles>, Finding) {
    match load::open(name, device, Verbosity::Quiet) {
        Ok(files) => {
            let found = format!("{}, {}", files.name(), files.path.display());
            (Some(files), Ok(found))
        }
        Err(error) => {
            let advice = match name {
                DEFAULT_MODEL => FETCH_DEFAULT_MODEL,
                _ => "`pard models` lists what is here, `pard pull OWNER/NAME` fetches a repository of the hub",
            };
            (None, failed(error.to_string(), advice))
        }
    }
}

/// Lets the model answer a question.
fn question(device: &Device, files: ModelFiles, arguments: &DoctorArguments) -> Finding {
    let advice = "with a smaller model (-m) or another adapter (--device) it may go";
    let answered = || -> anyhow::Result<(String, f64)> {
        let options = LoadOptions::default();
        ModelRunner::check(device, &options.plan(device)?, &files.config, 1, cache_positions(CONTEXT))?;
        let model = load::upload(device, files, options, Verbosity::Quiet)?;
        let prompt = match model.text.has_chat_template() {
            true => model.text.chat_tokens(&[Message::new("user", QUESTION)], Rendering::default())?,
            false => model.text.text_tokens(QUESTION)?,
        };
        let (method, drafts) = (Method::Ar, DraftLength::Fixed(0));
        let options = SequenceOptions::default().method(method).drafts(drafts).context(CONTEXT);
        let mut sequence = Sequence::new(&model.weights, None, options)?;
        sequence.warm_up()?;
        interrupt::listen()?;
        let limits = Limits::default().max_tokens(24).stop(Vec::new());
        let answer = answer(&mut sequence, &model, &prompt, limits, Begin::Anew, |_| Ok(()))?;
        let speed = tokens_per_second(answer.output.len(), &answer.statistics);
        Ok((answer.text.trim().to_owned(), speed))
    };
    match answered() {
        Err(error) => failed(output::one_line(&error), advice),
        Ok((text, _)) if arguments.model == DEFAULT_MODEL && !text.contains(ANSWER) => failed(
            format!("asked {QUESTION:?}, it says {text:?}"),
            "the driver or the model's file is wrong: update the driver, and let another model answer (-m)",
        ),
        Ok((text, speed)) => Ok(format!("{text:?}, {speed:.1} tokens/s")),
    }
}
