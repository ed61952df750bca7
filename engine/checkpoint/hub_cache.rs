//! The models that are on this machine already: the default model's cache and the hub's.

use std::fs;
use std::path::{Path, PathBuf};

use super::hugging_face;
use super::options::SourceOptions;
use super::resolve::{self, DEFAULT_MODEL, DEFAULT_MODEL_FILE};
use crate::error::{Error, Result};

/// A model in a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalModel {
    /// Its name: `smollm2`, or its repository.
    pub name: String,
    /// Its folder or file.
    pub path: PathBuf,
    /// Bytes on the disk, those of other revisions and unfinished downloads included.
    pub bytes: u64,
    /// State of its files.
    pub state: LocalState,
}

/// State of a model in a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalState {
    /// It can be used.
    Ready,
    /// A file is missing, described in words.
    Lacks(String),
    /// This crate does not support it, for this reason.
    Unsupported(String),
}

/// The models in the caches that `options` name, by name; the default model comes first.
///
/// # Errors
///
/// [`Error::Io`] if a cache is there and cannot be read.
pub fn local_models(options: &SourceOptions) -> Result<Vec<LocalModel>> {
    let mut models = Vec::new();
    if let Some(path) = options.cache.as_ref().map(|cache| cache.join(DEFAULT_MODEL_FILE))
        && let Ok(metadata) = fs::metadata(&path)
    {
        let name = DEFAULT_MODEL.to_owned();
        models.push(LocalModel { name, path, bytes: metadata.len(), state: LocalState::Ready });
    }
    if let Some(hub) = &options.hub_cache {
        let mut found = repositories(hub)?;
        found.sort_by(|one, other| one.name.cmp(&other.name));
        models.extend(found);
    }
    Ok(models)
}

/// The repositories in the hub's cache.
fn repositories(hub: &Path) -> Result<Vec<LocalModel>> {
    let failed = |source| Error::Io { path: hub.to_owned(), source };
    let entries = match fs::read_dir(hub) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut models = Vec::new();
    for entry in entries {
        let folder = entry.map_err(failed)?.path();
        let name = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("models--"));
        let Some(name) = name.map(|name| name.replacen("--", "/", 1)).filter(|_| folder.is_dir()) else { continue };
        let bytes = bytes_below(&folder);
        let (path, state) = match resolve::snapshot(hub, &name, None) {
            None => (folder, LocalState::Lacks("its main revision".to_owned())),
            Some(snapshot) => (snapshot.clone(), state(&snapshot)),
        };
        models.push(LocalModel { name, path, bytes, state });
    }
    Ok(models)
}

fn state(snapshot: &Path) -> LocalState {
    let missing = resolve::missing_files(snapshot);
    let ggufs = resolve::gguf_models(snapshot);
    if missing.is_some() && !ggufs.is_empty() {
        let part = ggufs.iter().all(|model| model.missing.is_some()).then(|| ggufs[0].missing.clone()).flatten();
        return part.map_or(LocalState::Ready, LocalState::Lacks);
    }
    // A model of another kind lacks what it does not need.
    let config = snapshot.join("config.json");
    match hugging_face::read_config(&config) {
        Err(error) if config.is_file() => LocalState::Unsupported(error.to_string()),
        _ => missing.map_or(LocalState::Ready, LocalState::Lacks),
    }
}

/// Bytes of all files below `folder`. Links are left out: the hub's lead to files that are counted already.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.path().symlink_metadata().ok()?)))
        .map(|(path, metadata)| {
            if metadata.is_dir() {
                bytes_below(&path)
            } else if metadata.is_file() {
                metadata.len()
            } else {
                0
            }
        })
        .sum()
}
