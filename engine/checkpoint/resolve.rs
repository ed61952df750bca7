//! From the name a user gives a model to a folder or file on this machine.
//! A name is the default model's alias, a path, or a repository of the Hugging Face hub, which is looked for in the
//! hub's own cache first, so that nothing another tool has fetched is fetched again. Where a repository holds GGUF files
//! and the name does not say which is meant, one is chosen, and the choice is told.

use std::path::{Component, Path, PathBuf};

use super::gguf_files::{self, GgufModel, Site};
use super::name::{Repository, stands_for_its_folder};
use super::options::{CONFIG, Found, SourceOptions, by_hand, required};
use super::safetensors::{self, INDEX_FILE, SINGLE_FILE};
use super::storage::Folder;
use crate::error::{Error, Result};

/// The default model's alias.
pub const DEFAULT_MODEL: &str = "smollm2";
/// Its file in the cache folder.
pub const DEFAULT_MODEL_FILE: &str = "smollm2-135m-instruct-q4_1.gguf";

/// The folder or GGUF file of the model `name`, downloaded if need be.
///
/// `name` is, tried in this order: `smollm2`; a folder, a GGUF file, or a file of a model's folder, which stands for it
/// (`~` is the user's home); a repository of the hub, as [`Repository::parse`] understands it: `owner/name`,
/// `owner/name@revision`, `owner/name:Q4_K_M`, or an address.
///
/// # Errors
///
/// [`Error::NoModel`], which says where it was looked for; [`Error::Hub`].
pub fn find(name: &str, options: &SourceOptions) -> Result<Found> {
    if name == DEFAULT_MODEL {
        return default_model(options).map(plainly);
    }
    let path = in_home(name, options)?;
    if path.is_file() {
        return folder_of(name, path).map(plainly);
    }
    if path.exists() {
        return Ok(plainly(path));
    }
    if let Some(repository) = parse(name, options)? {
        return in_cache_or_hub(name, &repository, options);
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

/// As [`find`], without the notice.
///
/// # Errors
///
/// As [`find`].
pub fn resolve(name: &str, options: &SourceOptions) -> Result<PathBuf> {
    find(name, options).map(|found| found.path)
}

/// Brings the repository `name` of the hub to its newest revision in the hub's cache, and gives its folder or file. The
/// default model's alias is no repository: its file is looked for, and there is no newer one.
///
/// # Errors
///
/// As [`find`].
pub fn pull(name: &str, options: &SourceOptions) -> Result<Found> {
    if name == DEFAULT_MODEL {
        return default_model(options).map(plainly);
    }
    let Some(repository) = parse(name, options)? else {
        return Err(no_model(name, "it is no repository of the Hugging Face hub (owner/name)"));
    };
    let Some(hub_cache) = &options.hub_cache else {
        return Err(no_model(name, NO_HOME));
    };
    if options.offline {
        return Err(no_model(name, "the environment forbids downloads (HF_HUB_OFFLINE)"));
    }
    download(&repository, hub_cache, "it is to be downloaded", options)
}

fn plainly(path: PathBuf) -> Found {
    Found { path, notice: None }
}

fn parse(name: &str, options: &SourceOptions) -> Result<Option<Repository>> {
    Repository::parse(name, &options.endpoint).map_err(|reason| no_model(name, reason))
}

/// The path `name`, in which a `~` at the beginning is the user's home.
fn in_home(name: &str, options: &SourceOptions) -> Result<PathBuf> {
    let Some(rest) = name.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with(['/', '\\'])) else {
        return Ok(PathBuf::from(name));
    };
    let home = options.home.as_ref().ok_or_else(|| no_model(name, "there is no home folder"))?;
    Ok(match rest.trim_start_matches(['/', '\\']) {
        "" => home.clone(),
        rest => home.join(rest),
    })
}

/// The file `path`, or its folder if it is a part of a model in Hugging Face form.
fn folder_of(name: &str, path: PathBuf) -> Result<PathBuf> {
    let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
    if !stands_for_its_folder(file) {
        return Ok(path);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match safetensors::list_files(folder, &Folder(folder)) {
        Ok((files, _)) if file.ends_with(".safetensors") && !files.iter().any(|known| known == file) => {
            let reason = format!("it is not a part of the model in its folder, which is in {}", files.join(", "));
            Err(no_model(name, reason))
        }
        _ => Ok(folder.to_owned()),
    }
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

fn in_cache_or_hub(name: &str, repository: &Repository, options: &SourceOptions) -> Result<Found> {
    let Some(hub_cache) = &options.hub_cache else {
        return Err(no_model(name, NO_HOME));
    };
    let absent = match snapshot(hub_cache, &repository.id, repository.revision.as_deref()) {
        None => format!("it is neither a folder nor in the hub's cache ({})", hub_cache.display()),
        Some(folder) => match in_snapshot(&folder, repository, options)? {
            Ok(found) => return Ok(found),
            Err(missing) => format!("its copy in the hub's cache, {}, lacks {missing}", folder.display()),
        },
    };
    if options.offline {
        return Err(no_model(
            name,
            format!("{absent}, and the environment forbids downloads (HF_HUB_OFFLINE); {}", by_hand(repository)),
        ));
    }
    download(repository, hub_cache, &absent, options)
}

/// The model in a folder of the hub's cache, or the file that it lacks.
fn in_snapshot(folder: &Path, repository: &Repository, options: &SourceOptions) -> Result<Result<Found, String>> {
    let missing = repository.gguf.clone().or_else(|| missing_files(folder));
    let Some(missing) = missing else { return Ok(Ok(plainly(folder.to_owned()))) };
    let models = gguf_models(folder);
    let (whole, parts): (Vec<GgufModel>, Vec<GgufModel>) = models.into_iter().partition(|one| one.missing.is_none());
    if whole.is_empty()
        || repository.gguf.as_ref().is_some_and(|asked| !whole.iter().any(|model| model.is_named(asked)))
    {
        let part = parts.into_iter().find(|model| repository.gguf.as_ref().is_none_or(|asked| model.is_named(asked)));
        return Ok(Err(part.and_then(|model| model.missing).unwrap_or(missing)));
    }
    let (model, notice) = gguf_files::choose(&whole, repository, Site::Here, options)?;
    Ok(Ok(Found { path: folder.join(model.file()), notice }))
}

#[cfg(feature = "hub")]
fn download(repository: &Repository, hub_cache: &Path, _absent: &str, options: &SourceOptions) -> Result<Found> {
    let found = super::hub::download(repository, hub_cache, options)?;
    match missing_files(&found.path).filter(|_| found.path.is_dir()) {
        None => Ok(found),
        Some(missing) => {
            let reason = format!("{} lacks {missing}", found.path.display());
            Err(Error::Hub { repo: repository.id.clone(), reason })
        }
    }
}

#[cfg(not(feature = "hub"))]
fn download(repository: &Repository, _hub_cache: &Path, absent: &str, _options: &SourceOptions) -> Result<Found> {
    let reason = format!("{absent}, and this build has no downloads (feature `hub`); {}", by_hand(repository));
    Err(no_model(&repository.id, reason))
}

/// The folder of a revision (a branch, a tag or a commit; `main` if none is named) in the hub's cache, complete or not.
pub(super) fn snapshot(hub_cache: &Path, repository: &str, revision: Option<&str>) -> Option<PathBuf> {
    let folder = hub_cache.join(format!("models--{}", repository.replace('/', "--")));
    let named = revision.unwrap_or("main");
    let commit = match std::fs::read_to_string(folder.join("refs").join(named)) {
        Ok(commit) => commit.trim().to_owned(),
        Err(_) => named.to_owned(),
    };
    let commit = Path::new(&commit);
    let mut components = commit.components();
    if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
        return None;
    }
    Some(folder.join("snapshots").join(commit)).filter(|folder| folder.is_dir())
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

/// The models in GGUF files of a folder of the hub's cache and of the folders in it.
pub(super) fn gguf_models(folder: &Path) -> Vec<GgufModel> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let inside = entries(folder).filter(|path| path.is_dir()).flat_map(|inner| entries(&inner).collect::<Vec<_>>());
    let files = entries(folder).chain(inside).filter(|path| path.is_file());
    gguf_files::models(files.filter_map(|path| {
        let name = path.strip_prefix(folder).ok()?.to_str()?.replace('\\', "/");
        Some((name, std::fs::metadata(&path).map(|metadata| metadata.len()).ok()))
    }))
}

fn no_model(name: &str, reason: impl Into<String>) -> Error {
    Error::NoModel { name: name.to_owned(), reason: reason.into() }
}
