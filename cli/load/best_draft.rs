//! `-d auto`: the best draft of a model that is on this machine.

use pard::checkpoint::ModelFiles;
use pard::checkpoint::options::SourceOptions;
use pard::checkpoint::published::PublishedDraft;
use pard::{Error, Result};

use crate::output::Verbosity;

/// The name that stands for it.
pub const AUTO: &str = "auto";

/// The best published draft for `target` that is on this machine.
///
/// # Errors
///
/// [`Error::NoModel`], which names those that could be fetched.
pub fn best_here(target: &ModelFiles, talk: Verbosity) -> Result<&'static str> {
    let sources = SourceOptions::from_env();
    let serving: Vec<_> = PublishedDraft::serving(&target.config, &target.text.tokenizer).collect();
    if let Some(draft) = serving.iter().find(|draft| draft.local(&sources).is_some()) {
        talk.note(&format!("the draft is {}", draft.name));
        return Ok(draft.name);
    }
    let names: Vec<&str> = serving.iter().map(|draft| draft.name).collect();
    let reason = match names.is_empty() {
        true => format!("no published draft for {} is known", target.name()),
        false => format!("none of {}, which serve {}, is on this machine", names.join(", "), target.name()),
    };
    Err(Error::NoModel { name: AUTO.to_owned(), reason })
}
