//! `pard inspect`: what a model's files say, and the memory it will need. It needs no GPU.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use pard::checkpoint::DraftFiles;
use pard::checkpoint::config::{Config, Experts, RopeScaling, SlidingWindow};
use pard::checkpoint::{Checkpoint, TensorInfo};
use pard::decoding::MAX_DRAFTS;
use pard::low_level::forward::{ModelRunner, tied_draft};
use pard::model::Weights;
use serde_json::{Map, Value, json};

use crate::args::MemoryArguments;
use crate::load;
use crate::output::{self, Verbosity};

#[derive(Args)]
pub struct InspectArguments {
    /// `smollm2`, a folder, a .gguf file, or a repository of the Hugging Face hub (`owner/name[:Q4_K_M]`)
    pub model: String,
    #[command(flatten)]
    pub memory: MemoryArguments,
    /// List every tensor
    #[arg(long)]
    pub tensors: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(arguments: &InspectArguments) -> anyhow::Result<ExitCode> {
    let files = load::open_any(&arguments.model, Verbosity::Freely)?;
    let memory = Memory::of(&files, arguments)?;
    match arguments.json {
        true => output::print(&as_json(&files, &memory, arguments.tensors).to_string())?,
        false => output::print(&as_text(&files, &memory, arguments.tensors))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes on the device.
struct Memory {
    context: usize,
    weights: u64,
    caches: u64,
    /// Rows of the target's head that a draft without embeddings of its own copies, if it does not use all of it.
    reduced_head: Option<usize>,
}

impl Memory {
    fn of(files: &DraftFiles, arguments: &InspectArguments) -> pard::Result<Memory> {
        let (config, memory) = (&files.config, &arguments.memory);
        let context = memory.context(config.context);
        Ok(Memory {
            context,
            weights: Weights::expected_bytes(config, &*files.checkpoint, memory.dtype())?,
            // A round looks past the context's end by two drafts at most.
            caches: ModelRunner::cache_bytes(memory.cache, config, context + 2 * MAX_DRAFTS),
            reduced_head: match config.shared_embeddings {
                true => tied_draft::vocabulary(config, &*files.checkpoint)?.map(|ids| ids.len()),
                false => None,
            },
        })
    }
}

/// Number of tensors of one type, their weights and their bytes in the file.
#[derive(Default)]
struct Share {
    tensors: usize,
    weights: u64,
    bytes: u64,
}

fn by_type(tensors: &[TensorInfo]) -> BTreeMap<String, Share> {
    let mut shares: BTreeMap<String, Share> = BTreeMap::new();
    for tensor in tensors {
        let share = shares.entry(tensor.stored.file_name()).or_default();
        share.tensors += 1;
        share.weights += weights(tensor);
        share.bytes += tensor.bytes;
    }
    shares
}

fn weights(tensor: &TensorInfo) -> u64 {
    tensor.shape.iter().fold(1, |product: u64, &length| product.saturating_mul(length as u64))
}

/// Weights of the model; a tied head that is stored all the same counts once.
pub fn parameters(config: &Config, checkpoint: &dyn Checkpoint) -> u64 {
    let is_copy = |tensor: &&TensorInfo| config.tied_head && tensor.name == "lm_head.weight";
    checkpoint.tensors().iter().filter(|tensor| !is_copy(tensor)).map(weights).sum()
}

fn rope_scaling(scaling: RopeScaling) -> String {
    match scaling {
        RopeScaling::None => "none".to_owned(),
        RopeScaling::Linear { factor } => format!("linear, factor {factor}"),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => format!(
            "llama3, factor {factor}, low {low_freq_factor}, high {high_freq_factor}, original context {original_context}"
        ),
        RopeScaling::Yarn(yarn) => format!(
            "yarn, factor {}, beta {} to {}, attention factor {:.4}, original context {}",
            yarn.factor, yarn.beta_slow, yarn.beta_fast, yarn.attention_factor, yarn.original_context
        ),
        RopeScaling::Factors => "a factor per frequency".to_owned(),
    }
}

fn sliding_window(window: &SlidingWindow) -> String {
    let layers = window.layers.iter().filter(|slides| **slides).count();
    format!("{} tokens in {layers} of {} layers", window.tokens, window.layers.len())
}

fn experts(experts: &Experts) -> String {
    let Experts { count, used, feed_forward_size, layers, .. } = experts;
    let mixtures = layers.iter().filter(|mixture| **mixture).count();
    format!("{used} of {count} for each row, {feed_forward_size} wide, in {mixtures} of {} layers", layers.len())
}

/// The hyper-parameters, under the names of `config.json`.
fn hyper_parameters(config: &Config) -> Vec<(&'static str, Value)> {
    vec![
        ("family", format!("{:?}", config.family).to_lowercase().into()),
        ("hidden_size", config.hidden_size.into()),
        ("num_hidden_layers", config.layers.into()),
        ("num_attention_heads", config.heads.into()),
        ("num_key_value_heads", config.kv_heads.into()),
        ("head_dim", config.head_dim.into()),
        ("intermediate_size", config.feed_forward_size.into()),
        ("experts", config.experts.as_ref().map(experts).into()),
        ("vocab_size", config.vocab_size.into()),
        ("max_position_embeddings", config.context.into()),
        ("rms_norm_eps", config.norm_epsilon.into()),
        ("rope_theta", config.rope_theta.into()),
        ("rope_scaling", rope_scaling(config.rope_scaling).into()),
        ("sliding_window", config.sliding_window.as_ref().map(sliding_window).into()),
        ("tie_word_embeddings", config.tied_head.into()),
        ("qkv_bias", config.qkv_bias.into()),
        ("head_norm", config.head_norm.into()),
        ("pard_token", config.mask_token.into()),
        ("shared_embeddings", config.shared_embeddings.into()),
        ("target_layers", config.target_layers.as_ref().map(|target| target.layers.clone()).into()),
        ("target_hidden_size", config.target_layers.as_ref().map(|target| target.hidden_size).into()),
        ("target_scale", config.target_layers.as_ref().map(|target| f64::from(target.scale)).into()),
    ]
}

/// Describes how a draft drafts; none of a model that names no mask token and reads no states.
fn draft_kind(config: &Config) -> Option<String> {
    let masks = match config.mask_token {
        Some(mask) => format!("PARD, in parallel by the mask token {mask}"),
        None => "one token at a time".to_owned(),
    };
    let Some(target) = &config.target_layers else { return config.mask_token.map(|_| masks) };
    Some(format!(
        "{masks}; PARD-2, beside the hidden states {:?} of a target whose hidden size is {}; without them beside other \
         targets, on another device, and with --target-states off",
        target.layers, target.hidden_size
    ))
}

fn as_text(files: &DraftFiles, memory: &Memory, list: bool) -> String {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut rows = vec![("name", files.name.clone()), ("path", files.path.display().to_string())];
    let given = hyper_parameters(&files.config).into_iter().filter(|(_, value)| !value.is_null());
    rows.extend(given.map(|(name, value)| (name, plain(&value))));
    rows.extend(draft_kind(&files.config).map(|kind| ("draft", kind)));
    if files.config.shared_embeddings {
        let head = match memory.reduced_head {
            None => "the target's".to_owned(),
            Some(rows) => format!("{rows} of the target's {} rows", files.config.vocab_size),
        };
        rows.extend([("embedding", "the target's, but for the mask token's row".to_owned()), ("head", head)]);
    }
    match &files.text {
        Some(text) => {
            let token = |&id: &u32| format!("{id} {}", text.tokenizer.token(id).unwrap_or_default());
            rows.extend([
                ("stop tokens", text.stop_tokens.iter().map(token).collect::<Vec<_>>().join(", ")),
                ("chat template", if text.has_chat_template() { "yes" } else { "no" }.to_owned()),
            ]);
        }
        None => rows.push(("tokenizer", "the target's".to_owned())),
    }
    let parameters = parameters(&files.config, &*files.checkpoint);
    rows.push(("parameters", format!("{:.1} million", parameters as f64 / 1e6)));
    for (name, share) in by_type(files.checkpoint.tensors()) {
        let count = format!("{} of {name}, {} in the file", share.tensors, output::bytes(share.bytes));
        rows.push(("tensors", count));
    }
    rows.extend([
        ("weights on the GPU", output::bytes(memory.weights)),
        ("caches on the GPU", format!("{} for {} tokens", output::bytes(memory.caches), memory.context)),
    ]);
    let mut lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<24} {value}")).collect();
    if list {
        let heading = ["tensor", "type", "shape"].map(str::to_owned).to_vec();
        let row =
            |tensor: &TensorInfo| vec![tensor.name.clone(), tensor.stored.file_name(), format!("{:?}", tensor.shape)];
        let table: Vec<Vec<String>> =
            std::iter::once(heading).chain(files.checkpoint.tensors().iter().map(row)).collect();
        lines.extend([String::new(), output::table(&table)]);
    }
    lines.join("\n")
}

fn as_json(files: &DraftFiles, memory: &Memory, list: bool) -> Value {
    let share = |(name, share): (String, Share)| {
        let counts = json!({ "tensors": share.tensors, "parameters": share.weights, "bytes": share.bytes });
        (name.to_owned(), counts)
    };
    let named: Map<String, Value> =
        hyper_parameters(&files.config).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut report = json!({
        "name": files.name,
        "path": files.path.display().to_string(),
        "config": named,
        "draft": draft_kind(&files.config),
        "reduced_head": memory.reduced_head,
        "stop_tokens": files.text.as_ref().map(|text| &text.stop_tokens),
        "chat_template": files.text.as_ref().map(|text| text.has_chat_template()),
        "parameters": parameters(&files.config, &*files.checkpoint),
        "tensors": by_type(files.checkpoint.tensors()).into_iter().map(share).collect::<Map<_, _>>(),
        "memory": { "context": memory.context, "weight_bytes": memory.weights, "cache_bytes": memory.caches },
    });
    if list {
        let tensor = |tensor: &TensorInfo| {
            json!({
                "name": tensor.name,
                "type": tensor.stored.file_name(),
                "shape": tensor.shape,
                "bytes": tensor.bytes,
            })
        };
        report["tensor_list"] = files.checkpoint.tensors().iter().map(tensor).collect();
    }
    report
}
