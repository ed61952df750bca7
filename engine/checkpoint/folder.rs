//! Folders that hold something else than a model in Hugging Face form: GGUF files, or an adapter of one.

use std::path::{Path, PathBuf};

use super::storage::Storage;
use crate::error::{Error, Result};

/// The name of the GGUF file that is meant by a folder without safetensors; none if it holds none.
///
/// # Errors
///
/// [`Error::NoModel`] if there are several, which it lists.
pub(super) fn gguf_file(folder: &Path, storage: &dyn Storage) -> Result<Option<String>> {
    let names = storage.names().map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    let ends_in = |name: &str, ending: &str| name.to_ascii_lowercase().ends_with(ending);
    if names.iter().any(|name| ends_in(name, ".safetensors") || ends_in(name, ".safetensors.index.json")) {
        return Ok(None);
    }
    // The projectors of pictures lie beside the models that they belong to.
    let is_model = |name: &&String| ends_in(name, ".gguf") && !name.to_ascii_lowercase().contains("mmproj");
    let mut files: Vec<&String> = names.iter().filter(is_model).collect();
    files.sort();
    match files.as_slice() {
        [] => Ok(None),
        [file] => Ok(Some((*file).clone())),
        [first, rest @ ..] if rest.iter().all(|file| is_part_of_same(first, file)) => Ok(Some((*first).clone())),
        several => {
            const MOST: usize = 8;
            let shown: Vec<&str> = several.iter().take(MOST).map(|file| file.as_str()).collect();
            let more = if several.len() > MOST { ", …" } else { "" };
            let reason = format!("the folder holds several GGUF files; name one of them: {}{more}", shown.join(", "));
            Err(no_model(folder, reason))
        }
    }
}

/// Returns `true` if two files are parts of one model: `name-00001-of-00003.gguf`.
fn is_part_of_same(one: &str, other: &str) -> bool {
    match (part(one), part(other)) {
        (Some((one, _, count)), Some((other, _, parts))) => one == other && count == parts,
        _ => false,
    }
}

/// Takes `name-00001-of-00003.ending` apart: the name, the number and the count.
fn part(file: &str) -> Option<(&str, usize, usize)> {
    let (stem, _) = file.rsplit_once('.')?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    Some((name, number.parse().ok()?, count.parse().ok()?))
}

/// The first file that is missing among shards whose names count them, if one is.
pub(super) fn missing_shard(files: &[String]) -> Option<String> {
    files.iter().find_map(|file| {
        let (name, _, count) = part(file)?;
        let numbers: Vec<usize> = files
            .iter()
            .filter_map(|other| part(other))
            .filter(|(other, ..)| *other == name)
            .map(|(_, at, _)| at)
            .collect();
        // Names count from 1, and a file that lies about its count must not cost time.
        let missing = (1..=count.min(files.len() + 1)).find(|number| !numbers.contains(number))?;
        let width = file.len() - file.rfind("-of-")? - "-of-.safetensors".len();
        Some(format!("{name}-{missing:0width$}-of-{count:0width$}.safetensors"))
    })
}

/// Refuses a folder with a LoRA adapter, be it beside its base model, where `transformers` applies it.
///
/// # Errors
///
/// [`Error::NoModel`].
pub(super) fn refuse_adapter(folder: &Path, storage: &dyn Storage) -> Result<()> {
    const REASON: &str = "the folder holds a LoRA adapter (adapter_config.json); merge it into its base model first \
                          (`merge_and_unload` and `save_pretrained` of the Python package peft)";
    if storage.has("adapter_config.json") { Err(no_model(folder, REASON.to_owned())) } else { Ok(()) }
}

/// The GGUF file of a folder on the disk; as [`gguf_file`].
pub(super) fn gguf_path(folder: &Path, storage: &dyn Storage) -> Result<Option<PathBuf>> {
    Ok(gguf_file(folder, storage)?.map(|name| folder.join(name)))
}

fn no_model(folder: &Path, reason: String) -> Error {
    Error::NoModel { name: folder.display().to_string(), reason }
}
