//! `pard drafts`: the published drafts that serve a model.

use std::process::ExitCode;

use clap::Args;
use pard::Result;
use pard::checkpoint::options::SourceOptions;
use pard::checkpoint::published::PublishedDraft;
use pard::checkpoint::resolve::DEFAULT_MODEL;
use pard::checkpoint::{DraftFiles, ModelFiles};
use pard::decoding::cache_positions;
use pard::low_level::forward::ModelRunner;
use pard::model::Weights;
use serde_json::{Value, json};

use crate::args::{DeviceArguments, MemoryArguments};
use crate::load;
use crate::output::{self, Verbosity};

#[derive(Args)]
pub struct DraftsArguments {
    /// The model: `smollm2`, a folder, a .gguf file, or a repository of the Hugging Face hub (`owner/name[:Q4_K_M]`)
    #[arg(default_value = DEFAULT_MODEL)]
    pub model: String,
    #[command(flatten)]
    pub memory: MemoryArguments,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// A draft for a model, as it lies on this machine.
struct Found {
    draft: &'static PublishedDraft,
    /// Its folder, if it is here.
    path: Option<std::path::PathBuf>,
    /// Device memory of weights and caches; of one that is not here, of its weights in 16 bits.
    bytes: u64,
}

/// Runs the command.
pub fn run(arguments: &DraftsArguments) -> anyhow::Result<ExitCode> {
    let target = load::open(&arguments.model, &DeviceArguments::default(), Verbosity::Freely)?;
    let sources = SourceOptions::from_env();
    let serving = PublishedDraft::serving(&target.config, &target.text.tokenizer);
    let found = serving.map(|draft| Found::new(draft, &target, &sources, &arguments.memory));
    let found = found.collect::<Result<Vec<_>>>()?;
    if arguments.json {
        output::print(&found.iter().map(Found::as_json).collect::<Value>().to_string())?;
    } else if found.is_empty() {
        output::note(&format!(
            "no draft for {} is known; any smaller model with its tokenizer can be one (-d), and `pard adapt` makes one",
            target.name()
        ));
    } else {
        output::print(&as_text(&found))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Found {
    fn new(
        draft: &'static PublishedDraft,
        target: &ModelFiles,
        sources: &SourceOptions,
        memory: &MemoryArguments,
    ) -> Result<Found> {
        let path = draft.local(sources);
        let bytes = match &path {
            None => 2_000_000 * u64::from(draft.millions),
            Some(path) => {
                let DraftFiles { config, checkpoint, .. } = DraftFiles::open(path)?;
                let positions = cache_positions(memory.context(target.config.context));
                Weights::expected_bytes(&config, &*checkpoint, memory.dtype())?
                    + ModelRunner::cache_bytes(memory.cache, &config, positions)
            }
        };
        Ok(Found { draft, path, bytes })
    }

    fn kind(&self) -> &'static str {
        if self.draft.reads_states { "PARD-2, for this model" } else { "PARD" }
    }

    fn as_json(&self) -> Value {
        let Found { draft, path, bytes } = self;
        let measured = draft.measured.map(|measured| {
            json!({ "tokens_per_round": measured.tokens_per_round, "k": measured.drafts, "prompts": measured.prompts })
        });
        json!({
            "name": draft.name,
            "reads_states": draft.reads_states,
            "path": path.as_ref().map(|path| path.display().to_string()),
            "bytes": bytes,
            "measured": measured,
        })
    }
}

fn as_text(found: &[Found]) -> String {
    let heading = ["draft", "kind", "tokens/round", "memory", "state"].map(str::to_owned).to_vec();
    let row = |found: &Found| {
        let measured = found.draft.measured.map_or("unknown".to_owned(), |measured| {
            format!("{} (K = {}, {})", measured.tokens_per_round, measured.drafts, measured.prompts)
        });
        let (memory, state) = match &found.path {
            Some(_) => (output::bytes(found.bytes), "here".to_owned()),
            None if found.draft.name.starts_with("models/") => {
                (output::bytes(found.bytes), "in pard's repository".to_owned())
            }
            None => (format!("about {}", output::bytes(found.bytes)), format!("pard pull {}", found.draft.name)),
        };
        vec![found.draft.name.to_owned(), found.kind().to_owned(), measured, memory, state]
    };
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(found.iter().map(row)).collect();
    output::table(&rows)
}
