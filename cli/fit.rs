//! `pard fit`: what memory models need on an adapter, in which formats and with which context they fit it, and how fast
//! they will be. Sizes come from the files' headers; speeds from passes over some of the layers, which are measured here.

mod report;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use pard::Result;
use pard::decoding::{Costs, Method, cache_positions};
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{Buffer, KernelPlan, MemoryReport};
use pard::low_level::ops::{MAX_ROWS, PeakProbe, WeightFormat};
use pard::model::{LoadOptions, MemoryEstimate, Model, PassCost, WeightDtype};

use crate::args::{ModelArguments, quantised_formats};
use crate::load::{self, Blueprints, Files, Placement};
use crate::output::{self, Verbosity};

/// Chances of a proposal to be accepted that speeds are foretold for.
const CHANCES: [f64; 4] = [0.5, 0.7, 0.9, 1.0];

#[derive(Args)]
pub struct FitArguments {
    #[command(flatten)]
    pub models: ModelArguments,
    /// Foretell no speeds, which takes no measurement
    #[arg(long)]
    pub sizes_only: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Print no notices and progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// Runs the command. The exit code is 1 if the models do not fit.
pub fn run(arguments: &FitArguments) -> anyhow::Result<ExitCode> {
    let talk = Verbosity::unless(arguments.quiet);
    let files = Files::open(&arguments.models, true, talk)?;
    let context = load::context(&arguments.models, &files, talk);
    let device = arguments.models.device.open()?;
    let sites = Placement::open(&device, &arguments.models, files.draft().is_some())?;
    let mut fit = Fit::of(&files, &sites, &arguments.models, context)?;
    if fit.verdict() != Some(false) && !arguments.sizes_only {
        talk.note("measuring passes over some of the layers");
        fit.speed = Some(Speed::measure(&files, &sites, &fit)?);
    }
    match arguments.json {
        true => output::print(&report::as_json(&fit).to_string())?,
        false => output::print(&report::as_text(&fit))?,
    }
    Ok(ExitCode::from(u8::from(fit.verdict() == Some(false))))
}

/// Contents of the report.
struct Fit {
    target: String,
    draft: Option<String>,
    adapter: String,
    plan: KernelPlan,
    options: LoadOptions,
    context: usize,
    /// Weights in each format, of both models.
    formats: Vec<(WeightFormat, u64)>,
    need: MemoryEstimate,
    draft_need: Option<MemoryEstimate>,
    /// The draft's adapter and its memory, if it is another.
    elsewhere: Option<(String, Memory)>,
    memory: Memory,
    /// `true` if it fits; none if that is not known.
    fits: Option<bool>,
    /// Why it does not, if a kernel could not bind it.
    obstacle: Option<String>,
    ways: Vec<Way>,
    speed: Option<Speed>,
}

/// Memory of a device.
#[derive(Clone, Copy)]
struct Memory {
    report: MemoryReport,
    /// Limit set by `--memory`.
    limit: Option<u64>,
}

impl Memory {
    /// Bytes that may be used, if known.
    fn available(self) -> Option<u64> {
        self.limit.or(self.report.free).or(self.report.total)
    }
}

/// A way to keep the weights.
struct Way {
    weights: WeightDtype,
    need: MemoryEstimate,
    fits: Option<bool>,
    /// The longest context that fits, up to what the target was made for or what was asked for; none if not even the
    /// shortest does.
    longest: Option<usize>,
}

impl Fit {
    fn of(files: &Files, sites: &Placement, arguments: &ModelArguments, context: usize) -> Result<Fit> {
        let options = arguments.memory.load_options();
        let memory = Memory { report: sites.device.memory(), limit: arguments.memory_limit };
        let elsewhere = sites.draft.as_ref().map(|(device, _)| {
            let report = device.memory();
            (device.name(), Memory { report, limit: None })
        });
        let blueprints = files.blueprints(options)?;
        let obstacle = blueprints.check_bindings(sites, context).err().map(|error| error.to_string());
        let draft_need = blueprints.draft_need(sites, context);
        let need = blueprints.target_need(sites, context);
        let max_context = files.target.config.context.max(context);
        let mut ways = Vec::new();
        let mut seen = Vec::new();
        for weights in choices(options.dtype) {
            let blueprints = files.blueprints(arguments.memory.load_options_with(weights))?;
            let formats = formats(&blueprints);
            // Quantised weights keep their formats, so that several choices may be the same.
            if seen.contains(&formats) {
                continue;
            }
            seen.push(formats);
            ways.push(Way::new(weights, &blueprints, sites, memory, [context, max_context]));
        }
        Ok(Fit {
            target: files.target.name().to_owned(),
            draft: files.draft().map(|draft| draft.name().to_owned()),
            adapter: sites.device.name(),
            plan: sites.plan,
            options,
            context,
            formats: formats(&blueprints),
            need,
            draft_need,
            elsewhere,
            memory,
            fits: ways.first().and_then(|way| way.fits),
            obstacle,
            ways,
            speed: None,
        })
    }

    /// Memory needed on the target's device.
    fn needed(&self) -> MemoryEstimate {
        self.need + self.draft_need.filter(|_| self.elsewhere.is_none()).unwrap_or_default()
    }

    /// Returns whether the draft fits a device of its own; none if it has none or that is not known.
    fn draft_fits(&self) -> Option<bool> {
        let ((_, memory), need) = (self.elsewhere.as_ref()?, self.draft_need?);
        memory.available().map(|most| need.total() <= most)
    }

    /// Returns whether everything fits, if that is known.
    fn verdict(&self) -> Option<bool> {
        match (self.fits, self.draft_fits()) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (fits, None) if self.elsewhere.is_none() => fits,
            (fits, draft_fits) => fits.and(draft_fits),
        }
    }
}

/// The choice that was made, then the others.
fn choices(asked: WeightDtype) -> Vec<WeightDtype> {
    let quantised =
        quantised_formats().into_iter().map(|layers| WeightDtype::Quantised { layers, ends: WeightFormat::Q8_0 });
    let others = [WeightDtype::Compact, WeightDtype::Bf16].into_iter().chain(quantised);
    std::iter::once(asked).chain(others.filter(|other| *other != asked)).collect()
}

fn formats(blueprints: &Blueprints) -> Vec<(WeightFormat, u64)> {
    let mut all = blueprints.target.formats();
    for (format, weights) in blueprints.draft.iter().flat_map(|draft| draft.formats()) {
        match all.iter_mut().find(|(known, _)| *known == format) {
            Some((_, sum)) => *sum += weights,
            None => all.push((format, weights)),
        }
    }
    all
}

impl Way {
    fn new(
        weights: WeightDtype,
        blueprints: &Blueprints,
        sites: &Placement,
        memory: Memory,
        [context, max_context]: [usize; 2],
    ) -> Way {
        let fits = |context| match blueprints.check_bindings(sites, context) {
            Err(_) => Some(false),
            Ok(()) => memory.available().map(|most| blueprints.need(sites, context).total() <= most),
        };
        // If the memory is not known, only the limits of bindings count.
        let may_fit = |context| fits(context) != Some(false);
        let (mut good, mut bad) = (1, max_context + 1);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            *(if may_fit(middle) { &mut good } else { &mut bad }) = middle;
        }
        let longest = (good > 1).then_some(good);
        Way { weights, need: blueprints.need(sites, context), fits: fits(context), longest }
    }
}

/// Expected speed with speculation.
struct Promise {
    /// The share of them that is accepted.
    accepted: f64,
    /// The K that is best then.
    drafts: usize,
    tokens_per_second: f64,
}

/// Estimated speed.
struct Speed {
    /// Tokens per second one after the other, at the beginning and at the end of the context.
    plain: f64,
    at_end: f64,
    /// Set if `pard tune` had measured the costs before.
    tuned: bool,
    /// By whom tokens are proposed, and what that promises for each of the chances.
    speculative: Option<(Method, Vec<Promise>)>,
    /// Bytes per second that are read from memory at most, if that could be measured.
    read: Option<f64>,
    /// Bytes of weights that a token takes.
    pass_bytes: u64,
}

impl Speed {
    fn measure(files: &Files, sites: &Placement, fit: &Fit) -> Result<Speed> {
        let device = &sites.device;
        let yardstick = PeakProbe::new(device, &fit.plan, |index| index);
        let read = yardstick.and_then(|yardstick| yardstick.measure(device)).ok().map(|rates| rates.read);
        let blueprints = files.blueprints(fit.options)?;
        let target = Model::sample(device, &files.target, fit.options, None)?;
        let (cost, at_end) = cost(&target, fit.context)?;
        let method = files.methods().last().copied().unwrap_or_default();
        let draft_cost = match files.other_draft() {
            None if sites.draft.is_some() => {
                self::cost(&Model::sample(sites.draft_device(), &files.target, fit.options, None)?, fit.context)?.0
            }
            None => cost.clone(),
            Some(draft) => {
                self::cost(&Model::sample(sites.draft_device(), draft, fit.options, Some(&target))?, fit.context)?.0
            }
        };
        let costs = Costs { target: cost, draft: draft_cost };
        let promise = |accepted| {
            let (drafts, tokens_per_second) = costs.promise(method, accepted);
            Promise { accepted, drafts, tokens_per_second }
        };
        Ok(Speed {
            plain: 1.0 / costs.target.of(1.0).max(1e-9),
            at_end: 1.0 / at_end.max(1e-9),
            tuned: target.tuning.is_some(),
            speculative: (method != Method::Ar).then(|| (method, CHANCES.into_iter().map(promise).collect())),
            read,
            pass_bytes: blueprints.target.pass_bytes(&fit.plan, None),
        })
    }
}

/// Cost of passes over a sample of a model, and seconds of one pass at the context's end.
fn cost(model: &Model, context: usize) -> Result<(PassCost, f64)> {
    let transformer: &Arc<_> = &model.weights;
    let choices = Buffer::storage(transformer.device(), "choices", 4 * MAX_ROWS as u64)?;
    let positions = cache_positions(context);
    let sequence = ModelRunner::new(transformer, positions, transformer.config().vocab_size, &choices)?;
    let cost = match &model.tuning {
        Some(tuning) => tuning.pass_cost(),
        None => PassCost::measure_steadily(&sequence)?,
    };
    // As much more as it takes here.
    let begin = PassCost::measure_at(&sequence, 0)?;
    let end = PassCost::measure_at(&sequence, context - 1)?;
    let at_end = cost.of(1.0) * (end / begin.max(1e-9)).max(1.0);
    Ok((cost, at_end))
}
