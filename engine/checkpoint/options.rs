//! Options for finding and fetching models, and the files of a model folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::name::Repository;
use super::{hugging_face, json};

/// A file that every model folder holds.
pub(super) const CONFIG: &str = "config.json";

/// Returns the files that a model folder with the file `config` must hold beside its tensors: that file, and a
/// tokenizer unless it is a draft's, which uses its target's.
pub(super) fn required(config: &Path) -> &'static [&'static str] {
    let is_draft = json::read(config).is_ok_and(|config| hugging_face::is_draft(&config));
    if is_draft { &[CONFIG] } else { &[CONFIG, "tokenizer.json"] }
}

/// Learns how a download is getting on.
pub trait DownloadProgress {
    /// `done` of the `total` bytes of `file` are here.
    fn report(&self, file: &str, done: u64, total: u64);
}

/// A model that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its folder or file.
    pub path: PathBuf,
    /// The choice that was made, in words, where the name left one open.
    pub notice: Option<String>,
}

/// Options for finding and fetching models.
#[derive(Clone)]
#[non_exhaustive]
pub struct SourceOptions<'a> {
    /// The user's home, which `~` stands for.
    pub home: Option<PathBuf>,
    /// The folder of the default model; none if the user has no home.
    pub cache: Option<PathBuf>,
    /// The hub's cache; none if the user has no home.
    pub hub_cache: Option<PathBuf>,
    /// The hub.
    pub endpoint: String,
    /// The user's key to gated repositories.
    pub token: Option<String>,
    /// `true` if nothing may be downloaded.
    pub offline: bool,
    /// Told of every download.
    pub progress: Option<&'a dyn DownloadProgress>,
    /// Gives the bytes of device memory, if they are known: asked where a repository has several models to choose from.
    pub memory: Option<&'a dyn Fn() -> Option<u64>>,
}

crate::builder::setters! {
    SourceOptions<'a> {
        home: Option<PathBuf>,
        cache: Option<PathBuf>,
        hub_cache: Option<PathBuf>,
        endpoint: String,
        token: Option<String>,
        offline: bool,
        progress: Option<&'a dyn DownloadProgress>,
        memory: Option<&'a dyn Fn() -> Option<u64>>,
    }
}

impl SourceOptions<'_> {
    /// As the environment says.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// As the environment variables given by `variable` say: `PARD_CACHE` for the default model, and for the hub those
    /// of Hugging Face's own tools (`HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`,
    /// `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`, and the former `HUGGINGFACE_HUB_CACHE` and `HUGGING_FACE_HUB_TOKEN`).
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let home = set(if cfg!(windows) { "USERPROFILE" } else { "HOME" }).map(PathBuf::from);
        let in_home = |folder: &str| home.as_ref().map(|home| home.join(folder));
        // As Hugging Face's tools do: compose files and units of systemd have no shell that would.
        let path = |name: &str| {
            let path = PathBuf::from(set(name)?);
            Some(path.strip_prefix("~").ok().and_then(|rest| Some(home.as_ref()?.join(rest))).unwrap_or(path))
        };
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
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN"));
        let token = token.or_else(|| std::fs::read_to_string(token_file?).ok());
        let yes = |name: &str| {
            text(name).is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        SourceOptions {
            cache: path("PARD_CACHE").or_else(|| own_caches.map(|caches| caches.join("pard"))),
            hub_cache: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .or_else(|| hub_home.as_ref().map(|home| home.join("hub"))),
            endpoint: text("HF_ENDPOINT").map_or_else(
                || "https://huggingface.co".to_owned(),
                |endpoint| endpoint.trim_end_matches('/').to_owned(),
            ),
            token: token
                .map(|token| token.trim_start_matches('\u{feff}').trim().to_owned())
                .filter(|token| !token.is_empty()),
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
            progress: None,
            memory: None,
            home,
        }
    }
}

/// Instructions for doing without a download.
pub(super) fn by_hand(repository: &Repository) -> &'static str {
    match repository.gguf {
        Some(_) => "put its .gguf file, or all parts of it, into a folder and name the file",
        None => {
            "put its config.json, tokenizer.json, tokenizer_config.json and *.safetensors into a folder and name that folder"
        }
    }
}
