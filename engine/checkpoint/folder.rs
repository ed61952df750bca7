//! Folders that hold something else than a model in Hugging Face form: GGUF files, or an adapter of one.

use std::path::Path;

use super::gguf_files::{self, GgufModel};
use super::json;
use super::lora::{self, ADAPTER_CONFIG};
use super::storage::Storage;
use crate::error::{Error, Result};

/// The name of the GGUF file that is meant by a folder without safetensors; none if it holds none.
///
/// # Errors
///
/// [`Error::NoModel`] if there are several, which it lists.
pub(super) fn gguf_file(folder: &Path, storage: &dyn Storage) -> Result<Option<String>> {
    let names = storage.names().map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    let is_safetensors = |name: &String| {
        let name = name.to_ascii_lowercase();
        name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")
    };
    if names.iter().any(is_safetensors) {
        return Ok(None);
    }
    match gguf_files::models(names.into_iter().map(|name| (name, None))).as_slice() {
        [] => Ok(None),
        [model] => Ok(Some(model.file().to_owned())),
        several => {
            const MOST: usize = 8;
            let shown: Vec<&str> = several.iter().take(MOST).map(GgufModel::file).collect();
            let more = if several.len() > MOST { ", …" } else { "" };
            let reason = format!("the folder holds several GGUF models; name one of them: {}{more}", shown.join(", "));
            Err(no_model(folder, reason))
        }
    }
}

/// Takes `name-00001-of-00003.ending` apart: the name, and the number and the count as they are written.
fn part(file: &str) -> Option<(&str, &str, &str)> {
    let (stem, _) = file.rsplit_once('.')?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    Some((name, number, count))
}

/// The first file that is missing among shards whose names count them, if one is.
pub(super) fn missing_shard(files: &[String]) -> Option<String> {
    files.iter().find_map(|file| {
        let (name, written, of) = part(file)?;
        written.parse::<usize>().ok()?;
        let count: usize = of.parse().ok()?;
        let others = files.iter().filter_map(|other| part(other)).filter(|(other, ..)| *other == name);
        let numbers: Vec<usize> = others.filter_map(|(_, number, _)| number.parse().ok()).collect();
        // Names count from 1, and a file that lies about its count must not cost time.
        let missing = (1..=count.min(files.len() + 1)).find(|number| !numbers.contains(number))?;
        Some(format!("{name}-{missing:0width$}-of-{of}.safetensors", width = written.len()))
    })
}

/// Refuses a folder with a LoRA adapter, be it beside its base model, where `transformers` applies it.
///
/// # Errors
///
/// [`Error::NoModel`].
pub(super) fn refuse_adapter(folder: &Path, storage: &dyn Storage) -> Result<()> {
    match json::read_if_present(storage, ADAPTER_CONFIG)? {
        Some(adapter) => Err(no_model(folder, lora::describe(Some(&adapter)))),
        None => Ok(()),
    }
}

fn no_model(folder: &Path, reason: String) -> Error {
    Error::NoModel { name: folder.display().to_string(), reason }
}
