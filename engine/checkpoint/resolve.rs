//! From the name a user gives a model to a folder or file on this machine.
//! A name is the default model's alias, a path, or a repository of the Hugging Face hub, which is looked for in the
//! hub's own cache first, so that nothing another tool has fetched is fetched again.

use std::path::{Component, Path, PathBuf};

use super::folder;
use super::options::{BY_HAND, CONFIG, SourceOptions, required};
use super::safetensors::{self, INDEX_FILE, SINGLE_FILE};
use super::storage::Folder;
use crate::error::{Error, Result};

/// The default model's alias.
pub const DEFAULT_MODEL: &str = "smollm2";
/// Its file in the cache folder.
pub const DEFAULT_MODEL_FILE: &str = "smollm2-135m-instruct-q4_1.gguf";

/// The folder or GGUF file of the model `name`, downloaded if need be.
///
/// `name` is `smollm2`, a folder, a file, or a repository of the hub (`owner/name`), tried in this order.
///
/// # Errors
///
/// [`Error::NoModel`], which says where it was looked for; [`Error::Hub`].
pub fn resolve(name: &str, options: &SourceOptions) -> Result<PathBuf> {
    if name == DEFAULT_MODEL {
        return default_model(options);
    }
    let path = Path::new(name);
    if path.exists() {
        return Ok(path.to_owned());
    }
    if is_repository(name) {
        return repository(name, options);
    }
    let reason = if path.is_absolute() {
        "there is no such folder or file".to_owned()
    } else {
        let here = std::env::current_dir().map(|folder| format!(" in {}", folder.display())).unwrap_or_default();
        format!(
            "there is no such folder or file{here}; a model is a folder, a .gguf file, {DEFAULT_MODEL:?} or a \
             repository of the Hugging Face hub (owner/name)"
        )
    };
    Err(no_model(name, reason))
}

/// Brings the repository `name` of the hub to its newest revision in the hub's cache, and gives its folder. The default
/// model's alias is no repository: its file is looked for, and there is no newer one.
///
/// # Errors
///
/// As [`resolve`].
pub fn pull(name: &str, options: &SourceOptions) -> Result<PathBuf> {
    if name == DEFAULT_MODEL {
        return default_model(options);
    }
    if !is_repository(name) {
        return Err(no_model(name, "it is no repository of the Hugging Face hub (owner/name)"));
    }
    let Some(hub_cache) = &options.hub_cache else {
        return Err(no_model(name, NO_HOME));
    };
    if options.offline {
        return Err(no_model(name, "the environment forbids downloads (HF_HUB_OFFLINE)"));
    }
    download(name, hub_cache, "it is to be downloaded", options)
}

const NO_HOME: &str = "there is no home folder to keep it in; set HF_HOME";

fn default_model(options: &SourceOptions) -> Result<PathBuf> {
    let Some(cache) = &options.cache else {
        return Err(no_model(DEFAULT_MODEL, "there is no home folder to keep it in; set PARD_CACHE"));
    };
    let file = cache.join(DEFAULT_MODEL_FILE);
    if file.is_file() {
        return Ok(file);
    }
    let reason = format!("{} is not there", file.display());
    Err(no_model(DEFAULT_MODEL, reason))
}

/// Returns `true` if `name` can be a repository and no path: `owner/name`, in the hub's letters.
fn is_repository(name: &str) -> bool {
    let valid = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.'))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.contains("..")
            && !part.contains("--")
    };
    let is_file = [".gguf", ".safetensors", ".json", ".bin"].iter().any(|extension| name.ends_with(extension));
    !is_file && name.split_once('/').is_some_and(|(owner, name)| valid(owner) && valid(name))
}

fn repository(name: &str, options: &SourceOptions) -> Result<PathBuf> {
    let Some(hub_cache) = &options.hub_cache else {
        return Err(no_model(name, NO_HOME));
    };
    let absent = match snapshot(hub_cache, name) {
        None => format!("it is neither a folder nor in the hub's cache ({})", hub_cache.display()),
        Some(folder) => match missing_files(&folder) {
            None => return Ok(folder),
            Some(missing) => match folder::gguf_path(&folder, &Folder(&folder))? {
                Some(file) => return Ok(file),
                None => format!("its copy in the hub's cache, {}, lacks {missing}", folder.display()),
            },
        },
    };
    if options.offline {
        return Err(no_model(
            name,
            format!("{absent}, and the environment forbids downloads (HF_HUB_OFFLINE); {BY_HAND}"),
        ));
    }
    download(name, hub_cache, &absent, options)
}

#[cfg(feature = "hub")]
fn download(name: &str, hub_cache: &Path, _absent: &str, options: &SourceOptions) -> Result<PathBuf> {
    let folder = super::hub::download(name, hub_cache, options)?;
    match missing_files(&folder) {
        None => Ok(folder),
        Some(missing) => {
            Err(Error::Hub { repo: name.to_owned(), reason: format!("{} lacks {missing}", folder.display()) })
        }
    }
}

#[cfg(not(feature = "hub"))]
fn download(name: &str, _hub_cache: &Path, absent: &str, _options: &SourceOptions) -> Result<PathBuf> {
    Err(no_model(name, format!("{absent}, and this build has no downloads (feature `hub`); {BY_HAND}")))
}

/// The folder of the repository's main revision in the hub's cache, complete or not.
pub(super) fn snapshot(hub_cache: &Path, repository: &str) -> Option<PathBuf> {
    let folder = hub_cache.join(format!("models--{}", repository.replace('/', "--")));
    let revision = std::fs::read_to_string(folder.join("refs").join("main")).ok()?;
    let revision = Path::new(revision.trim());
    let mut components = revision.components();
    if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
        return None;
    }
    Some(folder.join("snapshots").join(revision)).filter(|folder| folder.is_dir())
}

/// Describes the first file that a model folder lacks, if any.
pub(super) fn missing_files(folder: &Path) -> Option<String> {
    if let Some(missing) = required(&folder.join(CONFIG)).iter().find(|file| !folder.join(file).is_file()) {
        return Some((*missing).to_owned());
    }
    match safetensors::list_files(folder, &Folder(folder)) {
        Ok(_) => None,
        Err(Error::Damaged { reason, .. }) => Some(format!("a shard: {INDEX_FILE} {reason}")),
        Err(_) => Some(SINGLE_FILE.to_owned()),
    }
}

/// The GGUF file of a folder that is no Hugging Face model, if there is exactly one.
pub(super) fn only_gguf(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut files = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gguf") && path.is_file());
    files.next().filter(|_| files.next().is_none() && !folder.join("config.json").exists())
}

fn no_model(name: &str, reason: impl Into<String>) -> Error {
    Error::NoModel { name: name.to_owned(), reason: reason.into() }
}
