//! From models' names to models on a device, with progress bars on a terminal.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use pard_engine::decoding::{Decoder, DecoderOptions, Draft, Drafts, Method};
use pard_engine::gpu::Device;
use pard_engine::model::source::{self, DownloadProgress, SourceOptions};
use pard_engine::model::{Model, ModelFiles, Sequence};
use pard_engine::{Error, Result};
use serde_json::{Value, json};

use crate::args::ModelArguments;
use crate::output::{self, Talk};

/// The models' files, open and found to fit each other: what can be known without a device.
pub struct Files {
    pub target: ModelFiles,
    draft: Option<DraftFiles>,
    /// The draft's, if it has one.
    pub mask_token: Option<u32>,
}

enum DraftFiles {
    /// The target drafts for itself.
    Target,
    Other(Box<ModelFiles>),
}

impl Files {
    /// Finds and opens the models that `arguments` name, the draft only if it is wanted.
    pub fn open(arguments: &ModelArguments, wants_draft: bool, talk: Talk) -> Result<Files> {
        let target_path = find(&arguments.model, talk)?;
        let target = ModelFiles::open(&target_path)?;
        let mut files = Files { target, draft: None, mask_token: None };
        if let Some(name) = arguments.draft.as_deref().filter(|_| wants_draft) {
            let path = find(name, talk)?;
            files.draft = Some(match is_same(&path, &target_path) {
                true => DraftFiles::Target,
                false => DraftFiles::Other(Box::new(ModelFiles::open(&path)?)),
            });
        }
        if let Some(draft) = files.draft() {
            files.mask_token =
                Draft::check(&draft.config, &draft.tokenizer, &files.target.tokenizer, arguments.mask_token)?;
        }
        Ok(files)
    }

    /// The draft's files.
    pub fn draft(&self) -> Option<&ModelFiles> {
        match self.draft.as_ref()? {
            DraftFiles::Target => Some(&self.target),
            DraftFiles::Other(draft) => Some(draft),
        }
    }

    /// The methods that the models allow, the one to prefer last.
    pub fn methods(&self) -> Vec<Method> {
        let speculative = match (&self.draft, self.mask_token) {
            (None, _) => vec![],
            (Some(_), None) => vec![Method::Vsd],
            (Some(_), Some(_)) => vec![Method::Vsd, Method::Pard],
        };
        [vec![Method::Ar], speculative].concat()
    }

    /// Refuses a method that the models do not allow.
    pub fn check(&self, method: Method) -> Result<()> {
        match self.draft() {
            _ if self.methods().contains(&method) => Ok(()),
            Some(draft) => Err(Error::NoMaskToken { draft: draft.name.clone() }),
            None => {
                let reason = format!("{} needs a draft that proposes tokens (-d, -k)", method.name());
                Err(Error::Option { option: "method", reason })
            }
        }
    }

    /// Checks that caches for `context` tokens can be had, and uploads the models; one that drafts for itself is uploaded
    /// once.
    pub fn upload(self, device: &Device, arguments: &ModelArguments, context: usize, talk: Talk) -> Result<Models> {
        let options = arguments.memory.load_options();
        let plan = options.plan(device)?;
        for files in [Some(&self.target), self.draft()].into_iter().flatten() {
            Sequence::check(device, &plan, &files.config, Decoder::positions(context))?;
        }
        let upload = |files: ModelFiles| -> Result<Model> {
            let bar = talk.bar(format!("loading {}", files.name), "{msg} {wide_bar} {percent:>3} %");
            let report = |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            };
            let model = Model::upload(device, files, options, &report)?;
            bar.finish_and_clear();
            let weights = &model.transformer;
            talk.note(&format!("{}: {} on {}", model.name, output::bytes(weights.bytes()), device.name()));
            for notice in weights.notices() {
                talk.note(&format!("{}: {notice}", model.name));
            }
            Ok(model)
        };
        let (mask_token, draft) = (self.mask_token, self.draft);
        let target = upload(self.target)?;
        let draft = match draft {
            None => None,
            Some(DraftFiles::Target) => Some(Draft::new(&target, &target, mask_token)?),
            Some(DraftFiles::Other(files)) => Some(Draft::new(&upload(*files)?, &target, mask_token)?),
        };
        Ok(Models { target, draft })
    }
}

/// Models on a device.
pub struct Models {
    pub target: Model,
    pub draft: Option<Draft>,
}

impl Models {
    /// A decoder with caches of its own.
    pub fn decoder(&self, options: DecoderOptions) -> Result<Decoder> {
        Decoder::new(&self.target.transformer, self.draft.as_ref(), options)
    }

    /// Tells a decoder that chooses K what passes cost: as measured before on this device, or else anew.
    pub fn prepare(&self, decoder: &mut Decoder, talk: Talk) -> Result<()> {
        if decoder.options().drafts == Drafts::Auto {
            talk.note("measuring what passes of several rows cost here, to choose K");
            let costs = decoder.measure_costs()?;
            decoder.set_costs(costs);
        }
        Ok(())
    }

    /// What a report says of how the numbers came about.
    pub fn plan(&self, context: usize) -> Value {
        let transformer = &self.target.transformer;
        json!({
            "adapter": transformer.device().name(),
            "kernels": transformer.plan().to_string(),
            "cache": transformer.plan().cache.name(),
            "weight_bytes": transformer.bytes(),
            "context": context,
        })
    }
}

/// The context that `arguments` ask for; a longer one than the model was made for is worth a word.
pub fn context(arguments: &ModelArguments, files: &Files, talk: Talk) -> usize {
    let trained = files.target.config.context;
    let context = arguments.memory.context(trained);
    if context > trained {
        talk.note(&format!(
            "{} was made for contexts of {trained} tokens; what it writes past those may make no sense",
            files.target.name
        ));
    }
    context
}

/// Opens a model's files, downloaded if need be.
pub fn open(name: &str, talk: Talk) -> Result<ModelFiles> {
    ModelFiles::open(&find(name, talk)?)
}

fn find(name: &str, talk: Talk) -> Result<PathBuf> {
    let download = Download { talk, bar: RefCell::default() };
    source::resolve(name, &SourceOptions { progress: Some(&download), ..SourceOptions::from_env() })
}

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

/// Shows downloads, one file after the other.
struct Download {
    talk: Talk,
    /// The file and its bar.
    bar: RefCell<Option<(String, ProgressBar)>>,
}

impl DownloadProgress for Download {
    fn report(&self, file: &str, done: u64, total: u64) {
        const TEMPLATE: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
        let mut shown = self.bar.borrow_mut();
        if shown.as_ref().is_none_or(|(name, _)| name != file) {
            let bar = self.talk.bar(format!("downloading {file}"), TEMPLATE);
            *shown = Some((file.to_owned(), bar));
        }
        if let Some((_, bar)) = &*shown {
            bar.set_length(total);
            bar.set_position(done);
        }
    }
}
