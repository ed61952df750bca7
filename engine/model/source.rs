//! From the name a user gives a model to a folder or file on this machine.
//! A name is the default model's alias, a path, or a repository of the Hugging Face hub, which is looked for in the
//! hub's own cache first, so that nothing another tool has fetched is fetched again.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::json;
use super::safetensors::{self, INDEX_FILE, SINGLE_FILE};
use super::storage::Folder;
use crate::error::{Error, Result};

/// The default model's alias.
pub const DEFAULT_MODEL: &str = "smollm2";
/// Its file in the cache folder.
pub const DEFAULT_MODEL_FILE: &str = "smollm2-135m-instruct-q4_1.gguf";

/// What every model folder holds.
pub(super) const CONFIG: &str = "config.json";

/// What a model folder with the file `config` must hold beside its tensors: a tokenizer, unless it is a draft that uses
/// its target's.
pub(super) fn required(config: &Path) -> &'static [&'static str] {
    let shares = json::read(config).is_ok_and(|config| config.get("shared_embeddings") == Some(&true.into()));
    if shares { &[CONFIG] } else { &[CONFIG, "tokenizer.json"] }
}

/// Learns how a download is getting on.
pub trait DownloadProgress {
    /// `done` of the `total` bytes of `file` are here.
    fn report(&self, file: &str, done: u64, total: u64);
}

/// Where models are looked for, and how they are fetched.
pub struct SourceOptions<'a> {
    /// The folder of the default model; none if the user has no home.
    pub cache: Option<PathBuf>,
    /// The hub's cache; none if the user has no home.
    pub hub_cache: Option<PathBuf>,
    /// The hub.
    pub endpoint: String,
    /// The user's key to gated repositories.
    pub token: Option<String>,
    /// Whether nothing may be downloaded.
    pub offline: bool,
    /// Told of every download.
    pub progress: Option<&'a dyn DownloadProgress>,
}

impl SourceOptions<'_> {
    /// As the environment says.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// As the environment variables given by `variable` say: `PARD_CACHE` for the default model, and for the hub those
    /// of Hugging Face's own tools (`HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`,
    /// `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`).
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let home = path(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        let in_home = |folder: &str| home.as_ref().map(|home| home.join(folder));
        let caches = || path("XDG_CACHE_HOME").or_else(|| in_home(".cache"));

        let own_caches = if cfg!(windows) {
            path("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            path("XDG_CACHE_HOME").or_else(|| in_home("Library/Caches"))
        } else {
            caches()
        };
        let hub_home = path("HF_HOME").or_else(|| caches().map(|caches| caches.join("huggingface")));
        let token_file = path("HF_TOKEN_PATH").or_else(|| hub_home.as_ref().map(|home| home.join("token")));
        let token = text("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file?).ok());
        let yes = |name: &str| {
            text(name).is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        SourceOptions {
            cache: path("PARD_CACHE").or_else(|| own_caches.map(|caches| caches.join("pard"))),
            hub_cache: path("HF_HUB_CACHE").or_else(|| hub_home.as_ref().map(|home| home.join("hub"))),
            endpoint: text("HF_ENDPOINT").map_or_else(
                || "https://huggingface.co".to_owned(),
                |endpoint| endpoint.trim_end_matches('/').to_owned(),
            ),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
            progress: None,
        }
    }
}

/// The folder or GGUF file of the model `name`, downloaded if need be.
///
/// `name` is `smollm2`, a folder, a file, or a repository of the hub (`owner/name`), tried in this order.
///
/// **Errors**: [`Error::NoModel`], which says where it was looked for; [`Error::Hub`].
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
/// **Errors**: as [`resolve`].
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
    let reason = format!("{} is not there; `./run demo` and `./run model` fetch it", file.display());
    Err(no_model(DEFAULT_MODEL, reason))
}

/// Whether `name` can be a repository and no path: `owner/name`, in the hub's letters.
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
            Some(missing) => match only_gguf(&folder) {
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

/// How to do without a download.
pub(super) const BY_HAND: &str =
    "put its config.json, tokenizer.json, tokenizer_config.json and *.safetensors into a folder and name that folder";

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

/// What a model folder lacks, in words.
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
