//! Repositories of the Hugging Face hub by the names that people type and paste: `owner/name`, with a revision or a GGUF
//! file after it, or the address of the repository or of one of its files.

/// A repository of the hub, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `owner/name`.
    pub id: String,
    /// A branch, a tag or a commit; `main` if none is named.
    pub revision: Option<String>,
    /// The quantisation or the name of the GGUF file that is meant.
    pub gguf: Option<String>,
}

impl std::fmt::Display for Repository {
    /// Writes the name without a GGUF file.
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str(&self.id)?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(out, "@{revision}"))
    }
}

/// Hosts of the hub.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];

/// Files by which people name a folder in Hugging Face form.
pub(super) fn stands_for_its_folder(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".safetensors.index.json") || file == "config.json"
}

impl Repository {
    /// Understands `name`, if it can be a repository of the hub at `endpoint`.
    ///
    /// # Errors
    ///
    /// The fault of a name that can be nothing else.
    pub fn parse(name: &str, endpoint: &str) -> Result<Option<Repository>, String> {
        if let Some(path) = in_hub(name, endpoint)? {
            return Repository::parse_path(path).map(Some);
        }
        let Some((owner, rest)) = name.split_once('/') else { return Ok(None) };
        let end = rest.find(['@', ':']).unwrap_or(rest.len());
        let is_file =
            [".gguf", ".safetensors", ".json", ".bin"].iter().any(|extension| rest[..end].ends_with(extension));
        if is_file || !is_part(owner) || !is_part(&rest[..end]) {
            return Ok(None);
        }
        Repository::parse_last(owner, rest).map(Some)
    }

    /// Understands the path of an address.
    fn parse_path(path: &str) -> Result<Repository, String> {
        let path = path.split(['?', '#']).next().unwrap_or_default().trim_matches('/');
        let parts: Vec<&str> = path.split('/').collect();
        let (owner, name, rest) = match parts.as_slice() {
            [kind @ ("datasets" | "spaces"), ..] => {
                return Err(format!("it is an address of the hub's {kind}, not models"));
            }
            [owner, name, rest @ ..] if is_part(owner) => (*owner, *name, rest),
            _ => return Err("the address names no repository of the hub (owner/name)".to_owned()),
        };
        let repository = Repository::parse_last(owner, name)?;
        let (revision, file) = match rest {
            [] => return Ok(repository),
            ["tree", revision] => (*revision, None),
            ["resolve" | "blob" | "raw", revision, file @ ..] if !file.is_empty() => (*revision, Some(file.join("/"))),
            _ => return Err("the address is neither a repository's nor that of a file in one".to_owned()),
        };
        let gguf = match file {
            None => None,
            Some(file) if file.ends_with(".gguf") => Some(file),
            Some(file) if stands_for_its_folder(&file) && !file.contains('/') => None,
            Some(file) => return Err(format!("{file} is no model; name the repository or a .gguf file in it")),
        };
        let revision = revision.replace("%2F", "/");
        check_revision(&revision)?;
        Ok(Repository { revision: Some(revision).filter(|revision| revision != "main"), gguf, ..repository })
    }

    /// Understands what follows the owner: `name`, `name@revision`, `name:gguf`, `name@revision:gguf`.
    fn parse_last(owner: &str, last: &str) -> Result<Repository, String> {
        let (last, gguf) = match last.split_once(':') {
            None => (last, None),
            Some((last, gguf)) => (last, Some(gguf)),
        };
        let (name, revision) = match last.split_once('@') {
            None => (last, None),
            Some((name, revision)) => (name, Some(revision)),
        };
        if !is_part(name) {
            return Err("it names no repository of the hub (owner/name)".to_owned());
        }
        revision.map_or(Ok(()), check_revision)?;
        if gguf.is_some_and(|gguf| !is_path(gguf)) {
            return Err(
                "a colon is followed by a quantisation (owner/name:Q4_K_M) or the name of a .gguf file".to_owned()
            );
        }
        let revision = revision.filter(|revision| *revision != "main").map(str::to_owned);
        Ok(Repository { id: format!("{owner}/{name}"), revision, gguf: gguf.map(str::to_owned) })
    }
}

/// The path of an address in the hub, if `name` is an address.
fn in_hub<'a>(name: &'a str, endpoint: &str) -> Result<Option<&'a str>, String> {
    if let Some(path) = name.strip_prefix(endpoint).and_then(|rest| rest.strip_prefix('/')) {
        return Ok(Some(path));
    }
    let address = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://"));
    let hub = address.unwrap_or(name).split_once('/').filter(|(host, _)| HOSTS.contains(host));
    match hub {
        Some((_, path)) => Ok(Some(path)),
        None if name.contains("://") => {
            Err("of addresses, only the Hugging Face hub's are read (https://huggingface.co/owner/name)".to_owned())
        }
        None => Ok(None),
    }
}

/// Returns `true` if `part` can be an owner or a repository, in the hub's letters.
fn is_part(part: &str) -> bool {
    part.len() <= 96 && is_path(part) && !part.contains(['/']) && !part.ends_with(['-', '.']) && !part.contains("--")
}

/// Returns `true` for letters that stay inside of a folder.
fn is_path(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '/'))
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with(['-', '.']) && !part.contains(".."))
}

fn check_revision(revision: &str) -> Result<(), String> {
    match is_path(revision) {
        true => Ok(()),
        false => Err(format!("{revision:?} can be no revision: a branch, a tag or a commit")),
    }
}
