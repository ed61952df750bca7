//! `pard models` and `pard pull`: what is in the local caches, and how more comes there.

use std::process::ExitCode;

use clap::Args;
use pard::checkpoint::hub_cache::{LocalModel, LocalState, local_models};
use pard::checkpoint::name::Repository;
use pard::checkpoint::options::SourceOptions;
use serde_json::{Value, json};

use crate::output::{self, Verbosity};
use crate::{load, welcome};

#[derive(Args)]
pub struct ModelsArguments {
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct PullArguments {
    /// A repository of the Hugging Face hub (`owner/name[@revision][:Q4_K_M]`)
    pub model: String,
    /// Print no notices and progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// Lists the models in the local caches.
pub fn run(arguments: &ModelsArguments) -> anyhow::Result<ExitCode> {
    let options = SourceOptions::from_env();
    let models = local_models(&options)?;
    if arguments.json {
        output::print(&models.iter().map(as_json).collect::<Value>().to_string())?;
    } else if models.is_empty() {
        let places = [&options.cache, &options.hub_cache].into_iter().flatten();
        let places: Vec<String> = places.map(|folder| folder.display().to_string()).collect();
        if places.is_empty() {
            let reason = "there is no home folder, and so no cache; PARD_CACHE and HF_HOME name folders for models";
            return Err(anyhow::anyhow!(reason));
        }
        output::note(&format!(
            "no models in {}; `pard pull OWNER/NAME` fetches one of the hub's, such as {}",
            places.join(" and "),
            welcome::EXAMPLE
        ));
    } else {
        output::print(&as_text(&models))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings a repository of the hub to its newest revision in the hub's cache.
pub fn pull(arguments: &PullArguments) -> anyhow::Result<ExitCode> {
    let talk = Verbosity::unless(arguments.quiet);
    let path = load::pull(&arguments.model, talk)?;
    let options = SourceOptions::from_env();
    let repository = Repository::parse(&arguments.model, &options.endpoint).ok().flatten();
    let name = repository.map_or_else(|| arguments.model.clone(), |repository| repository.id);
    let found = local_models(&options)?.into_iter().find(|model| model.name == name);
    let size = found.map(|model| format!(", {}", output::bytes(model.bytes))).unwrap_or_default();
    talk.note(&format!("{}{size}: pard chat -m {}", arguments.model, arguments.model));
    output::print(&path.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn as_text(models: &[LocalModel]) -> String {
    let heading = ["model", "size", "state"].map(str::to_owned).to_vec();
    let row = |model: &LocalModel| {
        let state = match &model.state {
            LocalState::Ready => "ready".to_owned(),
            LocalState::Lacks(what) => format!("lacks {what}; pard pull {}", model.name),
            LocalState::Unsupported(_) => "not a model that pard runs".to_owned(),
        };
        vec![model.name.clone(), output::bytes(model.bytes), state]
    };
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(models.iter().map(row)).collect();
    let total = models.iter().map(|model| model.bytes).sum();
    format!("{}\n{} in all", output::table(&rows), output::bytes(total))
}

fn as_json(model: &LocalModel) -> Value {
    let (state, reason) = match &model.state {
        LocalState::Ready => ("ready", None),
        LocalState::Lacks(what) => ("incomplete", Some(what)),
        LocalState::Unsupported(reason) => ("unsupported", Some(reason)),
    };
    json!({
        "name": model.name,
        "path": model.path.display().to_string(),
        "bytes": model.bytes,
        "state": state,
        "reason": reason,
    })
}
