//! The models among GGUF files: one a file or a set of parts, told apart by their quantisation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use super::gguf::split::PartName;
use super::name::Repository;
use super::options::SourceOptions;
use crate::error::{Error, Result, megabytes};

/// One model: a file, or the parts of a split one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GgufModel {
    /// The files, in order; the first stands for all.
    pub files: Vec<String>,
    /// Their size in bytes, if that is known.
    pub bytes: Option<u64>,
    /// A part that is not there.
    pub missing: Option<String>,
}

/// Quantisations as files are named by them, in the order in which one is chosen: 4 bits, which most people run, then more,
/// then fewer.
const PREFERRED: [&str; 25] = [
    "Q4_K_M", "Q4_K_S", "Q4_K_L", "Q4_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_1", "Q5_K_M", "Q5_K_S", "Q5_K", "Q5_0",
    "Q5_1", "Q6_K", "Q8_0", "BF16", "F16", "F32", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q3_K", "Q2_K_L", "Q2_K_S", "Q2_K",
];

/// Beginnings of the names of quantisations that are not read.
const UNREAD: [&str; 6] = ["IQ1_", "IQ2_", "IQ3_", "TQ1_", "TQ2_", "MXFP4"];

/// A name that a model's file may end in, or have as a whole.
fn is_called(name: &str, wanted: &str) -> bool {
    let rest = name.strip_suffix(wanted);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(['-', '_', '.', '/']))
}

impl GgufModel {
    /// The name of the first file.
    pub fn file(&self) -> &str {
        &self.files[0]
    }

    /// The name without what says that it is a GGUF file or a part of one, in capital letters.
    fn stem(&self) -> String {
        let stem = PartName::parse(self.file()).map(|part| part.stem);
        stem.or(self.file().strip_suffix(".gguf")).unwrap_or(self.file()).to_uppercase()
    }

    /// The place of its quantisation in the order of choice, the last if its name does not tell.
    fn rank(&self) -> usize {
        let stem = self.stem();
        PREFERRED.iter().position(|known| is_called(&stem, known)).unwrap_or(PREFERRED.len())
    }

    /// The quantisation that its name tells, or else the file's name: one of the two names it in a repository.
    fn label(&self) -> String {
        let stem = self.stem();
        let known = PREFERRED.iter().find(|known| is_called(&stem, known));
        known.map_or_else(|| self.file().to_owned(), |known| (*known).to_owned())
    }

    /// Returns `false` if its name tells that its weights are in a format that is not read.
    fn is_read(&self) -> bool {
        let stem = self.stem();
        !UNREAD.iter().any(|start| stem.rsplit(['-', '.', '/']).next().is_some_and(|last| last.starts_with(start)))
    }

    /// Returns `true` if `asked`, a quantisation or a file's name, names it.
    pub fn is_named(&self, asked: &str) -> bool {
        self.files.iter().any(|file| file == asked) || is_called(&self.stem(), &asked.to_uppercase())
    }

    fn size(&self) -> String {
        self.bytes.map_or_else(|| "of unknown size".to_owned(), |bytes| megabytes(&bytes))
    }

    /// Returns `true` unless it is known to need more than `memory`, of which an eighth is left for caches.
    fn fits(&self, memory: Option<u64>) -> bool {
        memory.zip(self.bytes).is_none_or(|(memory, bytes)| bytes <= memory - memory / 8)
    }
}

/// The models that `files`, with their sizes, hold. What only goes with a model is left out: projectors of images and
/// statistics for quantising.
pub(super) fn models(files: impl IntoIterator<Item = (String, Option<u64>)>) -> Vec<GgufModel> {
    let stays_inside = |name: &str| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    let mut sizes: BTreeMap<String, Option<u64>> = files.into_iter().collect();
    sizes.retain(|name, _| {
        let file = name.rsplit('/').next().unwrap_or_default().to_lowercase();
        file.ends_with(".gguf") && !file.contains("mmproj") && !file.contains("imatrix") && stays_inside(name)
    });
    let mut models = Vec::new();
    let mut seen = BTreeSet::new();
    for name in sizes.keys() {
        let files: Vec<String> = match PartName::parse(name) {
            // A name may tell of more parts than there are files: then one past them is enough to miss one.
            Some(part) => (1..=part.count).take(sizes.len() + 1).map(|number| part.of(number)).collect(),
            None => vec![name.clone()],
        };
        if !seen.insert(files[0].clone()) {
            continue;
        }
        let bytes = files.iter().map(|file| sizes.get(file).copied().flatten()).sum();
        let missing = files.iter().find(|file| !sizes.contains_key(*file)).cloned();
        models.push(GgufModel { files, bytes, missing });
    }
    models
}

/// Place of the models that are chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    /// The hub's cache.
    Here,
    /// The hub.
    #[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "such a build has no downloads"))]
    Hub,
}

/// The model among `models`, of which there is one at least, that is meant by the name of `repository`, and the choice in
/// words if the name left one.
///
/// # Errors
///
/// [`Error::NoModel`] if the name fits none or several of them, or if none is read or fits the device's memory.
pub(super) fn choose<'a>(
    models: &'a [GgufModel],
    repository: &Repository,
    site: Site,
    options: &SourceOptions,
) -> Result<(&'a GgufModel, Option<String>)> {
    match &repository.gguf {
        Some(asked) => Ok((named(models, repository, asked)?, None)),
        None => unnamed(models, repository, site, options),
    }
}

fn named<'a>(models: &'a [GgufModel], repository: &Repository, asked: &str) -> Result<&'a GgufModel> {
    let fitting: Vec<&GgufModel> = models.iter().filter(|model| model.is_named(asked)).collect();
    let reason = match fitting.as_slice() {
        [model] if model.is_read() => return Ok(model),
        [model] => format!("{} is in a format that is not read", model.file()),
        [] => format!(
            "none of its GGUF files is called {asked}; it holds {}",
            list(models, |model| model.file().to_owned())
        ),
        several => {
            let several = several.iter().map(|model| model.file()).collect::<Vec<_>>().join(", ");
            format!("{asked} fits several of its files; name one of them in its place: {several}")
        }
    };
    Err(Error::NoModel { name: repository.to_string(), reason })
}

fn unnamed<'a>(
    models: &'a [GgufModel],
    repository: &Repository,
    site: Site,
    options: &SourceOptions,
) -> Result<(&'a GgufModel, Option<String>)> {
    let fault = |reason: String| Error::NoModel { name: repository.to_string(), reason };
    // A file that is here costs nothing to try.
    let memory = match (models, site) {
        ([_], _) | (_, Site::Here) => None,
        (_, Site::Hub) => options.memory.and_then(|memory| memory()),
    };
    let readable = || models.iter().filter(|model| model.is_read());
    let Some(model) = readable().filter(|model| model.fits(memory)).min_by_key(|model| model.rank()) else {
        return Err(fault(match (readable().min_by_key(|model| model.bytes), memory) {
            (Some(smallest), Some(memory)) => format!(
                "none of its GGUF models fits the {} of device memory; {repository}:{} takes the smallest all the same ({})",
                megabytes(&memory),
                smallest.label(),
                smallest.size(),
            ),
            _ => format!(
                "its GGUF files are in formats that are not read: {}",
                list(models, |model| model.file().to_owned())
            ),
        }));
    };
    let notice = match (models, site) {
        (_, Site::Here) => format!(
            "{repository}: {} is taken, which is on this machine; {repository}:QUANTISATION names another",
            model.file()
        ),
        ([_], Site::Hub) => return Ok((model, None)),
        (_, Site::Hub) => format!(
            "{repository}: {} is taken ({}{}); {repository}:QUANTISATION names another: {}",
            model.file(),
            model.size(),
            memory.map(|memory| format!(", of {} of device memory", megabytes(&memory))).unwrap_or_default(),
            list(models, GgufModel::label)
        ),
    };
    Ok((model, Some(notice)))
}

fn list(models: &[GgufModel], name: impl Fn(&GgufModel) -> String) -> String {
    models.iter().map(name).collect::<Vec<_>>().join(", ")
}
