//! Measurements, in order of importance.

use std::time::{Duration, Instant};

use pard::checkpoint::resolve::DEFAULT_MODEL;
use pard::decoding::{DraftLength, Method, SequenceOptions};
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{Device, KernelPlan, MatmulPath, Profile, adapters};
use pard::low_level::measure::{self, KernelTime, MadeModel, Shape, Spread};
use pard::low_level::ops::{
    MAX_ROWS, PeakProbe, Phase, WeightFormat, check_products, check_row_invariance, check_values,
};
use pard::model::StatesChoice;
use pard::{Error, Message};
use serde_json::{Value, json};

use super::record::Record;
use super::{ReportArguments, training};
use crate::args::{MemoryArguments, ModelArguments};
use crate::devices;
use crate::load::{Files, Models};
use crate::output::{self, Verbosity};
use crate::profile::trace;

/// Row counts that say most.
const PRINCIPAL_ROWS: [usize; 8] = [1, 2, 4, 8, 9, 13, 16, 32];
const FORMATS: [WeightFormat; 3] = [WeightFormat::Bf16, WeightFormat::Q4K, WeightFormat::Q8_0];
/// Positions of a sequence whose passes are timed.
const POSITIONS: usize = 64;
const CONTEXTS: [usize; 4] = [1 << 10, 4 << 10, 16 << 10, 32 << 10];
const PROMPTS: [usize; 2] = [512, 4096];
/// K of the rounds that are timed, that first which says most.
const DRAFTS: [usize; 5] = [8, 4, 2, 12, 6];
/// Passes and rounds of a profile.
const PROFILED_PASSES: usize = 3;
const PROFILED_ROUNDS: usize = 5;
/// Prompt of the rounds.
const QUESTION: &str = "Write a Python function that returns the n-th Fibonacci number, and explain it.";

/// Measures all there is time for.
pub fn measure(device: &Device, arguments: &ReportArguments, record: &mut Record) -> anyhow::Result<()> {
    let plans = plans(device);
    let mut traced: Vec<(String, Profile, f64)> = Vec::new();
    record.item("adapter", |record| adapter(device, arguments, &plans, record))?;
    for plan in &plans {
        record.item(&format!("self-check, {}", plan.products), |record| self_check(device, plan, record))?;
    }
    record.item("rates", |record| {
        let rates = PeakProbe::new(device, &plans[0], |index| index)?.measure(device)?;
        record.set("rates", json!({ "read_bytes_per_second": rates.read, "multiply_flops_per_second": rates.multiply }))
    })?;

    let shapes = Shape::all().map(|shape| shape.for_device(device));
    let [smollm2, small, qwen3, llama, mixture] = &shapes;
    let [bf16, q4_k, q8_0] = FORMATS;
    let plain = &plans[0];
    let all = [
        (smollm2, bf16),
        (llama, q4_k),
        (llama, bf16),
        (small, bf16),
        (qwen3, q4_k),
        (mixture, q4_k),
        (small, q4_k),
        (llama, q8_0),
        (qwen3, bf16),
        (qwen3, q8_0),
        (small, q8_0),
        (smollm2, q8_0),
        (smollm2, q4_k),
    ];
    // On slow devices, one shape stands for all until the rest has been measured.
    let (first, rest) = all.split_at(if device.is_software() { 1 } else { 4 });
    for (shape, format) in first {
        passes(device, plain, shape, *format, &PRINCIPAL_ROWS, &mut traced, record)?;
    }
    save_trace(&traced, record)?;
    rounds(device, arguments, &mut traced, record)?;
    save_trace(&traced, record)?;
    let long = if device.is_software() { &all[..1] } else { &[(llama, q4_k), (small, bf16)] };
    for (shape, format) in long {
        long_contexts(device, plain, shape, *format, record)?;
    }
    record.item("training steps of SmolLM2-135M", |record| {
        let steps = training::steps(device, plain, smollm2, &|| record.keep_going())?;
        steps.map_or(Ok(()), |(spread, entry)| record.append("training", with(entry, &as_json(&spread))))
    })?;
    for (shape, format) in rest {
        passes(device, plain, shape, *format, &PRINCIPAL_ROWS, &mut traced, record)?;
    }
    for plan in &plans[1..] {
        for (shape, format) in &all {
            passes(device, plan, shape, *format, &PRINCIPAL_ROWS, &mut traced, record)?;
        }
    }
    let others: Vec<usize> = (1..=MAX_ROWS).filter(|rows| !PRINCIPAL_ROWS.contains(rows)).collect();
    for (shape, format) in &all {
        passes(device, plain, shape, *format, &others, &mut traced, record)?;
    }
    save_trace(&traced, record)
}

/// The default plan, and that with cooperative matrices where the adapter has some.
fn plans(device: &Device) -> Vec<KernelPlan> {
    let plain = device.default_plan();
    let cooperative = device.cooperative_tile();
    let cooperative = cooperative.map(|tile| KernelPlan { products: MatmulPath::Cooperative { tile }, ..plain });
    [Some(plain), cooperative].into_iter().flatten().collect()
}

fn adapter(
    device: &Device,
    arguments: &ReportArguments,
    plans: &[KernelPlan],
    record: &mut Record,
) -> anyhow::Result<()> {
    let memory = device.memory();
    let chosen = adapters(&arguments.device.query())?.into_iter().find(|adapter| adapter.chosen);
    record.set("device", json!(device.name()))?;
    record.set("software", json!(device.is_software()))?;
    record.set("memory_bytes", json!(memory.total))?;
    record.set("plans", plans.iter().map(|plan| json!(plan.to_string())).collect())?;
    record.set("adapter", chosen.as_ref().map(devices::as_json).unwrap_or_default())
}

/// The kernels against values known to be right, and a row's bits alone against those beside others.
fn self_check(device: &Device, plan: &KernelPlan, record: &mut Record) -> anyhow::Result<()> {
    let mut checks: Vec<(String, pard::Result<()>)> = vec![("values".to_owned(), check_values(device, plan))];
    if plan.products == MatmulPath::Plain {
        // A CPU's driver takes half a second for each kernel.
        let every = !device.is_software();
        for rows in (2..=MAX_ROWS).filter(|rows| every || PRINCIPAL_ROWS.contains(rows)) {
            checks.push((format!("bits of {rows} rows"), check_row_invariance(device, plan, rows)));
        }
    } else {
        checks.push(("products and their bits".to_owned(), check_products(device, plan)));
    }
    let faults: Vec<String> =
        checks.iter().filter_map(|(what, done)| Some(format!("{what}: {}", done.as_ref().err()?))).collect();
    let products = plan.products.to_string();
    record.append("checks", json!({ "products": products, "checks": checks.len(), "faults": faults }))
}

/// T(rows) of a whole pass, and its kernels at one row and at eight.
fn passes(
    device: &Device,
    plan: &KernelPlan,
    shape: &Shape,
    format: WeightFormat,
    counts: &[usize],
    traced: &mut Vec<(String, Profile, f64)>,
    record: &mut Record,
) -> anyhow::Result<()> {
    let products = plan.products.to_string();
    let name = format!("{} in {}, {products}", shape.name, format.name());
    let is_first = counts.contains(&1);
    let what = if is_first { "principal rows" } else { "the other rows" };
    record.item(&format!("passes of {name}: {what}"), |record| {
        let model = MadeModel::new(device, plan, shape, format, POSITIONS)?;
        let sequence = measure::bound_sequence(&model.weights, POSITIONS)?;
        let runs = if device.is_software() { 3 } else { 9 };
        let (times, alike) = measure::passes(&sequence, counts, runs, &|| record.keep_going())?;
        let mut times: Vec<Value> =
            times.iter().map(|(rows, spread)| with(json!({ "rows": rows }), &as_json(spread))).collect();
        let is_same = |entry: &Value| {
            entry["shape"] == shape.name && entry["format"] == format.name() && entry["products"] == *products
        };
        if let Some(entry) = record.list("passes").iter_mut().find(|entry| is_same(entry)) {
            times.extend(entry["times"].as_array().into_iter().flatten().cloned());
            times.sort_by_key(|time| time["rows"].as_u64());
            entry["times"] = json!(times);
            for (key, more) in [("compared", alike.compared), ("differing", alike.differing)] {
                let both: Vec<Value> = entry[key]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .cloned()
                    .chain(more.into_iter().map(Value::from))
                    .collect();
                entry[key] = json!(both);
            }
            return record.save();
        }
        let formats: Vec<Value> = model
            .formats
            .iter()
            .map(|(format, weights)| json!({ "format": format.name(), "weights": weights }))
            .collect();
        record.append(
            "passes",
            json!({
                "shape": shape.name,
                "format": format.name(),
                "products": products,
                "formats": formats,
                "layers": shape.config.layers,
                "distinct_layers": model.distinct_layers,
                "vocabulary": shape.config.vocab_size,
                "pass_bytes": model.pass_bytes,
                "set_up_seconds": model.seconds,
                "times": times,
                "compared": alike.compared,
                "differing": alike.differing,
            }),
        )?;
        for rows in [1, 8].into_iter().filter(|_| record.keep_going()).collect::<Vec<_>>() {
            let tokens: Vec<u32> = (0..rows as u32).collect();
            let (profile, seconds) = measure::profiled(device, &mut || {
                (0..PROFILED_PASSES).try_for_each(|_| sequence.run(Phase::Decode, &tokens, 0, rows))
            })?;
            let kernels: Vec<Value> = measure::kernels(&profile).iter().map(kernel_json).collect();
            let busy: f64 = profile.submits.iter().flatten().map(|dispatch| dispatch.end - dispatch.begin).sum();
            record.append(
                "kernels",
                json!({
                    "shape": shape.name, "format": format.name(), "products": products, "rows": rows,
                    "passes": PROFILED_PASSES, "wall_seconds": seconds, "kernel_seconds": busy, "kernels": kernels,
                }),
            )?;
            traced.push((format!("{name}, pass of {rows}"), profile, seconds));
        }
        Ok(())
    })
}

/// The time of a row behind contexts of all lengths, attention by itself, and prompts.
fn long_contexts(
    device: &Device,
    plan: &KernelPlan,
    shape: &Shape,
    format: WeightFormat,
    record: &mut Record,
) -> anyhow::Result<()> {
    let name = format!("{} in {}", shape.name, format.name());
    record.item(&format!("contexts and prompts of {name}"), |record| {
        let positions = CONTEXTS[CONTEXTS.len() - 1];
        let model = MadeModel::new(device, plan, shape, format, positions)?;
        let sequence = measure::bound_sequence(&model.weights, positions)?;
        let runs = if device.is_software() { 2 } else { 7 };
        let base = json!({
            "shape": shape.name, "format": format.name(), "products": plan.products.to_string(),
            "layers": shape.config.layers,
        });
        for context in CONTEXTS {
            for (context, spread) in measure::contexts(&sequence, &[context], runs, &|| record.keep_going())? {
                let attention = attention_seconds(device, &sequence, context)?;
                let more = json!({ "context": context, "attention_seconds": attention });
                record.append("contexts", with(with(base.clone(), &more), &as_json(&spread)))?;
            }
        }
        for tokens in PROMPTS {
            let runs = if device.is_software() { 1 } else { 3 };
            let spread = measure::prompt(&sequence, tokens, runs, &|| record.keep_going())?;
            let Some(spread) = spread else { continue };
            let multiplications = model.multiplications_per_row() * tokens as u64;
            let more = json!({ "tokens": tokens, "flops": 2 * multiplications });
            record.append("prompts", with(with(base.clone(), &more), &as_json(&spread)))?;
        }
        Ok(())
    })
}

/// Seconds that attention's kernels take in a pass of one row at the end of `context` tokens; none without timestamps.
fn attention_seconds(device: &Device, sequence: &ModelRunner, context: usize) -> anyhow::Result<Option<f64>> {
    let profile = match measure::profiled(device, &mut || sequence.run(Phase::Decode, &[0], context - 1, 1)) {
        Ok((profile, _)) => profile,
        Err(Error::Option { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let dispatches = profile.submits.iter().flatten().filter(|dispatch| dispatch.kernel.starts_with("attention"));
    Ok(Some(dispatches.map(|dispatch| dispatch.end - dispatch.begin).sum()))
}

/// Rounds of AR, VSD and PARD by K, with the share of the time in which the device has nothing to do.
fn rounds(
    device: &Device,
    arguments: &ReportArguments,
    traced: &mut Vec<(String, Profile, f64)>,
    record: &mut Record,
) -> anyhow::Result<()> {
    let named = ModelArguments {
        model: arguments.model.clone().unwrap_or_else(|| DEFAULT_MODEL.to_owned()),
        draft: arguments.draft.clone(),
        mask_token: None,
        memory: MemoryArguments::default(),
        memory_limit: None,
        device: arguments.device.clone(),
        draft_device: None,
        target_states: StatesChoice::Auto,
    };
    let mut loaded = None;
    record.item("rounds: models", |_| {
        let files = Files::open(&named, named.draft.is_some(), Verbosity::Quiet)?;
        let methods = files.methods();
        let context = files.target.config.context.min(512);
        loaded = Some((files.upload(device, &named, context, Verbosity::Quiet)?, methods, context));
        Ok(())
    })?;
    let Some((models, methods, context)) = loaded else { return Ok(()) };
    for (index, drafts) in [0].into_iter().chain(DRAFTS).enumerate() {
        for &method in methods.iter().rev().filter(|&&method| (method == Method::Ar) == (index == 0)) {
            record.item(&format!("rounds of {}, K = {drafts}", method.name()), |record| {
                let options =
                    SequenceOptions::default().method(method).drafts(DraftLength::Fixed(drafts)).context(context);
                let entry = timed_rounds(device, &models, options, &format!("{} {drafts}", method.name()), traced)?;
                record.append("rounds", with(json!({ "method": method.name(), "drafts": drafts }), &entry))
            })?;
        }
    }
    Ok(())
}

fn timed_rounds(
    device: &Device,
    models: &Models,
    options: SequenceOptions,
    name: &str,
    traced: &mut Vec<(String, Profile, f64)>,
) -> anyhow::Result<Value> {
    let [tokens, most] = if device.is_software() { [32, 4] } else { [128, 10] };
    let context = options.context;
    let text = &models.target.text;
    let vocabulary = models.target.weights.config().vocab_size;
    let prompt = match text.chat_tokens(&[Message::new("user", QUESTION)], Default::default()) {
        Ok(prompt) => prompt,
        // Without a template the text would be no answer; any tokens do.
        Err(_) => (0..32).map(|index| (index * 7919 + 13) % vocabulary as u32).collect(),
    };
    let mut sequence = models.sequence(options)?;
    sequence.warm_up()?;
    sequence.start(&prompt)?;
    sequence.round()?;
    let begin = Instant::now();
    let has_room = |len: usize| len + 2 * MAX_ROWS < context;
    let mut times = Vec::new();
    while sequence.statistics().committed_tokens < tokens
        && begin.elapsed() < Duration::from_secs(most as u64)
        && has_room(sequence.tokens().len())
    {
        sequence.round()?;
        times.push(sequence.last_round().time.as_secs_f64());
    }
    let statistics = sequence.statistics().clone();
    let profiled = measure::profiled(device, &mut || {
        for _ in 0..PROFILED_ROUNDS {
            if has_room(sequence.tokens().len()) {
                sequence.round()?;
            }
        }
        Ok(())
    });
    let mut entry = json!({
        "target": models.target.name(),
        "draft": models.draft.as_ref().map(|draft| draft.name.clone()),
        "prompt_tokens": prompt.len(),
        "rounds": statistics.rounds,
        "tokens_per_second": statistics.tokens_per_second(),
        "tokens_per_round": statistics.tokens_per_round(),
        "accepted_per_position": statistics.accepted_per_position(),
        "round_seconds": Spread::of(&times).as_ref().map(as_json),
    });
    let (profile, seconds) = match profiled {
        Ok(profiled) => profiled,
        Err(Error::Option { .. }) => return Ok(entry),
        Err(error) => return Err(error.into()),
    };
    let busy = |submit: &Vec<pard::low_level::gpu::DispatchTime>| match (submit.first(), submit.last()) {
        (Some(first), Some(last)) => last.end - first.begin,
        _ => 0.0,
    };
    let busy: f64 = profile.submits.iter().map(busy).sum();
    entry["host_share"] = json!((1.0 - busy / seconds.max(1e-9)).max(0.0));
    traced.push((name.to_owned(), profile, seconds));
    Ok(entry)
}

fn save_trace(traced: &[(String, Profile, f64)], record: &Record) -> anyhow::Result<()> {
    let parts = traced.iter().map(|(name, profile, seconds)| (name.clone(), profile, *seconds));
    output::replace_file(&record.folder().join("trace.json"), &trace::of_profiles(parts).to_string())
}

fn as_json(spread: &Spread) -> Value {
    json!({ "seconds": spread.median, "least": spread.least, "most": spread.most, "runs": spread.runs })
}

fn kernel_json(time: &KernelTime) -> Value {
    let work = &time.work;
    let more = json!({
        "kernel": time.kernel, "matrix": work.shape, "rows": work.rows, "bytes": work.bytes, "flops": work.flops,
        "stored": work.stored, "total_seconds": time.total,
    });
    with(more, &as_json(&time.seconds))
}

/// Both objects' fields.
fn with(mut one: Value, other: &Value) -> Value {
    if let (Some(one), Some(other)) = (one.as_object_mut(), other.as_object()) {
        one.extend(other.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    one
}
