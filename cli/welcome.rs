//! What `pard` shows on a terminal when no command is given: what is here, and what to try.

use std::process::ExitCode;

use pard::checkpoint::hub_cache::{LocalModel, LocalState, local_models};
use pard::checkpoint::options::SourceOptions;
use pard::checkpoint::resolve::DEFAULT_MODEL;
use pard::low_level::gpu::{AdapterQuery, adapters};

use crate::output;

/// Models that are listed by name.
const LISTED: usize = 3;

/// A model that answers in a conversation and is fetched by its name, for a machine without models.
pub const EXAMPLE: &str = "Qwen/Qwen3-0.6B";

/// Shows it.
pub fn run() -> anyhow::Result<ExitCode> {
    let models = local_models(&SourceOptions::from_env()).unwrap_or_default();
    let ready: Vec<&LocalModel> = models.iter().filter(|model| model.state == LocalState::Ready).collect();
    let model = ready.first().map_or(EXAMPLE, |model| &model.name);
    let fetched = if ready.is_empty() { ", which is fetched first" } else { "" };
    let option = if model == DEFAULT_MODEL { String::new() } else { format!(" -m {model}") };
    let version = env!("CARGO_PKG_VERSION");
    output::print(&format!(
        "pard {version}: language models on any GPU, by parallel-draft speculative decoding\n\n\
         adapter  {}\n\
         models   {}\n\n\
         To try:\n  \
         pard chat{option}\n      talk with {model}{fetched}\n  \
         pard serve{option}\n      the same in a browser, and OpenAI's interface for other programs\n  \
         pard doctor\n      check the driver, the adapter and the kernels\n\n\
         `pard help` lists all commands, `pard models` the models that are here.",
        adapter(),
        listed(&ready),
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn adapter() -> String {
    match adapters(&AdapterQuery::default()) {
        Ok(found) => match found.into_iter().find(|adapter| adapter.chosen) {
            Some(adapter) => format!("{}, {}, {}", adapter.name, adapter.kind, adapter.backend),
            None => "none that can be used; `pard doctor` says why".to_owned(),
        },
        Err(error) => format!("none: {error}"),
    }
}

fn listed(models: &[&LocalModel]) -> String {
    let named = models.iter().take(LISTED).map(|model| format!("{} ({})", model.name, output::bytes(model.bytes)));
    let mut names: Vec<String> = named.collect();
    match models.len().saturating_sub(LISTED) {
        0 => {}
        more => names.push(format!("{more} more")),
    }
    if names.is_empty() {
        "none here yet; a repository of the Hugging Face hub is fetched by its name".to_owned()
    } else {
        names.join(", ")
    }
}
