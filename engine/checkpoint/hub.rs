//! Fetches a model from the Hugging Face hub into the hub's cache.
//! The revision is looked up once and all files are taken from it; its name (`refs/main`) moves there last, so that a
//! download that was broken off is never taken for a model. The next one goes on where it stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;

use super::gguf_files::{self, Site};
use super::hugging_face::PROJECTION_FILE;
use super::json;
use super::lora::{self, ADAPTER_CONFIG};
use super::name::Repository;
use super::options::{CONFIG, DownloadProgress, Found, SourceOptions, by_hand, required};
use super::safetensors::{INDEX_FILE, SINGLE_FILE, shard_names};
use crate::error::{Error, Result};

/// Files that are taken if they are there.
const OPTIONAL: [&str; 5] =
    ["tokenizer.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja", PROJECTION_FILE];

/// Time limit for the hub's description of a repository.
const PATIENCE: Duration = Duration::from_secs(30);

/// Downloads what is missing of `repository`, and gives the folder, or the GGUF file that is meant or chosen.
///
/// # Errors
///
/// [`Error::Hub`]; those of [`gguf_files::choose`].
pub(super) fn download(repository: &Repository, hub_cache: &Path, options: &SourceOptions) -> Result<Found> {
    let cache = Cache::new(hub_cache.to_owned());
    // No retries: the crate goes on at the wrong byte after one. Starting again resumes correctly.
    let api = ApiBuilder::from_cache(cache.clone())
        .with_endpoint(options.endpoint.clone())
        .with_token(options.token.clone())
        .with_progress(false)
        .with_user_agent("pard", env!("CARGO_PKG_VERSION"))
        .build();
    let hub = Hub { repository, name: &repository.id, cache, options };
    let api = api.map_err(|error| hub.failure(&error))?;
    let named = match &repository.revision {
        None => Repo::model(hub.name.to_owned()),
        Some(revision) => Repo::with_revision(hub.name.to_owned(), RepoType::Model, revision.clone()),
    };
    let (revision, files) = hub.describe(&api, &named)?;
    let pinned = Repo::with_revision(hub.name.to_owned(), RepoType::Model, revision.clone());

    let names: Vec<String> = files.iter().map(|file| file.rfilename.clone()).collect();
    let ggufs = gguf_files::models(files.into_iter().map(|file| (file.rfilename, file.size)));
    let has_tensors = names.iter().any(|name| name.ends_with(".safetensors") && !name.contains(['/', '\\']));
    let is_folder = names.iter().any(|name| name == CONFIG) && (has_tensors || ggufs.is_empty());
    let (file, notice) = if ggufs.is_empty() || is_folder && repository.gguf.is_none() {
        hub.fetch_folder(&api, &pinned, &names)?;
        (None, None)
    } else {
        let (model, notice) = gguf_files::choose(&ggufs, repository, Site::Hub, options)?;
        if let Some(missing) = &model.missing {
            return Err(hub.error(format!("the repository holds no {missing}, a part of {}", model.file())));
        }
        for file in &model.files {
            hub.fetch(&api, &pinned, file)?;
        }
        (Some(model.file()), notice)
    };
    let cached = hub.cache.repo(named);
    if repository.revision.as_ref() != Some(&revision) {
        cached.create_ref(&revision).map_err(|error| hub.error(format!("cannot write to the cache: {error}")))?;
    }
    let folder = cached.pointer_path(&revision);
    Ok(Found { path: file.map_or_else(|| folder.clone(), |file| folder.join(file)), notice })
}

/// A repository as the hub describes it.
#[derive(Deserialize)]
struct Description {
    sha: String,
    siblings: Vec<HubFile>,
}

/// A file of it.
#[derive(Deserialize)]
struct HubFile {
    rfilename: String,
    size: Option<u64>,
}

/// One repository and how to reach it.
struct Hub<'a> {
    repository: &'a Repository,
    name: &'a str,
    cache: Cache,
    options: &'a SourceOptions<'a>,
}

impl Hub<'_> {
    /// The newest commit of the revision that is meant, and its files.
    fn describe(&self, api: &Api, named: &Repo) -> Result<(String, Vec<HubFile>)> {
        let request = api.repo(named.clone()).info_request().query("blobs", "true");
        let response = request.config().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().call();
        let mut response = response.map_err(|error| self.unreachable(&error.to_string()))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(self.refusal(status));
        }
        let Description { sha, siblings } = response
            .body_mut()
            .read_json()
            .map_err(|error| self.error(format!("{} does not describe it: {error}", self.options.endpoint)))?;
        // It becomes a folder's name.
        if sha.is_empty() || !sha.chars().all(|letter| letter.is_ascii_alphanumeric()) {
            return Err(self.error(format!("{} gives its revision as {sha:?}", self.options.endpoint)));
        }
        Ok((sha, siblings))
    }

    /// Fetches a model in Hugging Face form.
    fn fetch_folder(&self, api: &Api, pinned: &Repo, files: &[String]) -> Result<()> {
        let holds = |name: &str| files.iter().any(|file| file == name);
        if self.repository.gguf.is_some() {
            return Err(self.error("the repository holds no GGUF file".to_owned()));
        }
        if !holds(CONFIG) && holds(ADAPTER_CONFIG) {
            let config = self.fetch(api, pinned, ADAPTER_CONFIG)?;
            let name = self.name.to_owned();
            return Err(Error::NoModel { name, reason: lora::describe(json::read(&config).ok().as_ref()) });
        }
        self.expect(files, CONFIG)?;
        let config = self.fetch(api, pinned, CONFIG)?;
        for file in required(&config) {
            self.expect(files, file)?;
            self.fetch(api, pinned, file)?;
        }
        for file in OPTIONAL.into_iter().filter(|file| holds(file)) {
            self.fetch(api, pinned, file)?;
        }
        for file in self.tensor_files(api, pinned, files)? {
            self.fetch(api, pinned, &file)?;
        }
        Ok(())
    }

    /// Refuses a repository of `files` without the file `required`.
    fn expect(&self, files: &[String], required: &str) -> Result<()> {
        if files.iter().any(|file| file == required) {
            return Ok(());
        }
        Err(self.error(format!("the repository holds no {required}")))
    }

    /// The files that hold the tensors.
    fn tensor_files(&self, api: &Api, pinned: &Repo, files: &[String]) -> Result<Vec<String>> {
        let holds = |name: &str| files.iter().any(|file| file == name);
        if holds(SINGLE_FILE) {
            return Ok(vec![SINGLE_FILE.to_owned()]);
        }
        if holds(INDEX_FILE) {
            let index = self.fetch(api, pinned, INDEX_FILE)?;
            let mut shards: Vec<String> = shard_names(&index, &json::read(&index)?)?.into_values().collect();
            shards.sort();
            shards.dedup();
            return Ok(shards);
        }
        // A name with a slash is another variant in a folder of its own; the loader would not look there.
        let loose = files.iter().filter(|file| file.ends_with(".safetensors") && !file.contains(['/', '\\']));
        let loose: Vec<String> = loose.cloned().collect();
        match loose.is_empty() {
            true => Err(self.error("the repository holds no *.safetensors file".to_owned())),
            false => Ok(loose),
        }
    }

    /// The file in the cache, downloaded if it is not there.
    fn fetch(&self, api: &Api, pinned: &Repo, file: &str) -> Result<PathBuf> {
        if let Some(path) = self.cache.repo(pinned.clone()).get(file) {
            return Ok(path);
        }
        let mut total = 0;
        let report = Report { file, done: 0, total: &mut total, progress: self.options.progress };
        let path =
            api.repo(pinned.clone()).download_with_progress(file, report).map_err(|error| self.failure(&error))?;
        // The crate takes a connection that closed early for the end of the file.
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if length != total {
            if let Ok(blob) = fs::canonicalize(&path) {
                let _ = fs::remove_file(blob);
            }
            let _ = fs::remove_file(&path);
            return Err(self.error(format!("{file} came with {length} of its {total} bytes; try again")));
        }
        Ok(path)
    }

    fn failure(&self, error: &ApiError) -> Error {
        let text = error.to_string();
        // The crate hides the type that has the number.
        let status = text.rsplit_once("http status: ").and_then(|(_, number)| number.trim().parse().ok());
        match (error, status) {
            (ApiError::InvalidResume, _) | (_, Some(416)) => self.error(format!(
                "a broken download stands in the way; delete the *.part files below {} and try again",
                self.cache.path().display()
            )),
            (_, Some(status)) => self.refusal(status),
            (ApiError::RequestError(_), None) => self.unreachable(&text),
            (ApiError::LockAcquisition(path), _) => {
                self.error(format!("another process is downloading it ({})", path.display()))
            }
            _ => self.error(format!("{text}; what has arrived is kept, and trying again goes on from there")),
        }
    }

    /// The error for an answer of the hub that is no success.
    fn refusal(&self, status: u16) -> Error {
        let (name, endpoint) = (self.name, &self.options.endpoint);
        let reason = match status {
            401 | 403 => {
                let key = match self.options.token {
                    None => "and set HF_TOKEN",
                    Some(_) => "with the account HF_TOKEN belongs to",
                };
                format!(
                    "{endpoint} refuses access ({status}): there is no such repository, or it is private, or gated; \
                     for a gated one, accept its terms at {endpoint}/{name} {key}"
                )
            }
            404 => match &self.repository.revision {
                None => format!("{endpoint} has no such repository or file ({status})"),
                Some(revision) => {
                    format!(
                        "{endpoint} has no such repository, or no revision {revision} or no such file there ({status})"
                    )
                }
            },
            429 => format!("{endpoint} takes no more requests for now ({status}); wait, or set HF_TOKEN"),
            status => format!("{endpoint} answers with status {status}"),
        };
        self.error(reason)
    }

    fn unreachable(&self, error: &str) -> Error {
        self.error(format!(
            "cannot reach {}: {error}. Without a network, {} (from {}/{}/tree/main)",
            self.options.endpoint,
            by_hand(self.repository),
            self.options.endpoint,
            self.name
        ))
    }

    fn error(&self, reason: String) -> Error {
        Error::Hub { repo: self.name.to_owned(), reason }
    }
}

/// Passes the crate's counts on.
struct Report<'a> {
    file: &'a str,
    done: u64,
    total: &'a mut u64,
    progress: Option<&'a dyn DownloadProgress>,
}

impl Report<'_> {
    fn tell(&self) {
        if let Some(progress) = self.progress {
            progress.report(self.file, self.done, *self.total);
        }
    }
}

impl hf_hub::api::Progress for Report<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        (self.done, *self.total) = (0, size as u64);
        self.tell();
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        self.tell();
    }

    fn finish(&mut self) {
        self.tell();
    }
}
