//! From models' names to models on a device, with progress bars on a terminal.

mod best_draft;
mod blueprints;

use std::cell::{OnceCell, RefCell};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use pard::checkpoint::options::{DownloadProgress, Found, SourceOptions};
use pard::checkpoint::resolve;
use pard::checkpoint::{DraftFiles, ModelFiles};
use pard::decoding::{Costs, Draft, DraftLength, Engine, EngineOptions, Method, Sequence, SequenceOptions};
use pard::low_level::forward::tied_draft;
use pard::low_level::gpu::Device;
use pard::model::{LoadOptions, MemoryPlan, Model, Progress, StatesChoice};
use pard::{Error, Result};
use serde_json::{Value, json};

pub use self::best_draft::AUTO;
use self::best_draft::best_here;
pub use self::blueprints::{Blueprints, Placement};
use crate::args::{DecodingArguments, DeviceArguments, ModelArguments};
use crate::output::{self, Verbosity};
use crate::usage::usage;

/// The models' files, open and found to fit each other: what can be known without a device.
pub struct Files {
    pub target: ModelFiles,
    draft: Option<Drafter>,
    /// The draft's, if it has one.
    pub mask_token: Option<u32>,
}

enum Drafter {
    /// The target drafts for itself.
    Target,
    Other(Box<ModelFiles>),
}

impl Files {
    /// Finds and opens the models that `arguments` name, the draft only if it is wanted.
    pub fn open(arguments: &ModelArguments, wants_draft: bool, talk: Verbosity) -> Result<Files> {
        let find = |name: &str| find(name, &arguments.device, arguments.memory_limit, talk);
        let target_path = find(&arguments.model)?;
        let target = ModelFiles::open(&target_path)?;
        let suggested = target.text.suggested.join(", ");
        if !suggested.is_empty() {
            talk.announce(&output::wrapped(&format!(
                "{}: its files suggest {suggested}; options say what is done",
                target.name()
            )));
        }
        let mut files = Files { target, draft: None, mask_token: None };
        if let Some(name) = arguments.draft.as_deref().filter(|_| wants_draft) {
            let path = find(draft_name(name, &files.target, talk)?)?;
            files.draft = Some(match is_same(&path, &target_path) {
                true => Drafter::Target,
                false => Drafter::Other(Box::new(draft_at(&path, &files.target, arguments.target_states, talk)?)),
            });
        }
        if let Some(draft) = files.draft() {
            let mask_token = Draft::mask(&draft.config, arguments.mask_token)?;
            for notice in Draft::check(&draft.text.tokenizer, &files.target.text.tokenizer, mask_token)? {
                talk.note(&format!("{}: {notice}", draft.name()));
            }
            files.mask_token = mask_token;
        }
        Ok(files)
    }

    /// The draft's files.
    pub fn draft(&self) -> Option<&ModelFiles> {
        match self.draft.as_ref()? {
            Drafter::Target => Some(&self.target),
            Drafter::Other(draft) => Some(draft),
        }
    }

    /// The draft's files, if it is another model than the target.
    pub fn other_draft(&self) -> Option<&ModelFiles> {
        match self.draft.as_ref()? {
            Drafter::Target => None,
            Drafter::Other(draft) => Some(draft),
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

    /// Refuses a method that the models do not allow. N-grams need none.
    pub fn check(&self, method: Method) -> anyhow::Result<()> {
        match self.draft() {
            _ if method == Method::Ngram || self.methods().contains(&method) => Ok(()),
            Some(draft) => Err(Error::NoMaskToken { draft: draft.name().to_owned() }.into()),
            None => Err(usage("--method", format!("{} needs a draft that proposes tokens (-d, -k)", method.name()))),
        }
    }

    /// Says so if `context` is longer than the target was made for.
    pub fn note_long_context(&self, context: usize, talk: Verbosity) {
        let (name, trained) = (self.target.name(), self.target.config.context);
        if context > trained {
            talk.note(&format!(
                "{name} was made for contexts of {trained} tokens; what it writes past those may make no sense"
            ));
        }
    }

    /// Memory plans of the target, and of the draft if it is another model.
    pub fn blueprints(&self, options: LoadOptions) -> Result<Blueprints> {
        let of = |files: &ModelFiles, target| MemoryPlan::new(&files.config, &*files.checkpoint, options.dtype, target);
        let target = of(&self.target, None)?;
        let draft = match &self.draft {
            Some(Drafter::Other(files)) => Some(of(files, Some(&target))?),
            Some(Drafter::Target) | None => None,
        };
        Ok(Blueprints { target, draft, drafts_for_itself: matches!(self.draft, Some(Drafter::Target)) })
    }

    /// Checks that the models and caches for `context` tokens can be had, and uploads the models; one that drafts for itself
    /// is uploaded once.
    pub fn upload(
        self,
        device: &Device,
        arguments: &ModelArguments,
        context: usize,
        talk: Verbosity,
    ) -> Result<Models> {
        let options = arguments.memory.load_options();
        let sites = Placement::open(device, arguments, self.draft.is_some())?;
        let blueprints = self.blueprints(options)?;
        blueprints.check_bindings(&sites, context)?;
        blueprints.check_memory(&sites, context, arguments.memory_limit)?;
        let draft_device = sites.draft_device();
        let (mask_token, draft) = (self.mask_token, self.draft);
        let draft = match draft {
            // On a device of its own it needs weights of its own.
            Some(Drafter::Target) if sites.draft.is_some() => {
                Some(Drafter::Other(Box::new(ModelFiles::open(&self.target.path)?)))
            }
            draft => draft,
        };
        let target = upload(device, self.target, options, talk)?;
        let draft = match draft {
            None => None,
            Some(Drafter::Target) => Some(Draft::new(&target, &target, mask_token)?),
            Some(Drafter::Other(files)) => {
                let model = upload_draft(draft_device, *files, &target, options, talk)?;
                Some(Draft::new(&model, &target, mask_token)?)
            }
        };
        Ok(Models { target, draft, measured: OnceCell::new() })
    }
}

/// Files and settings of a sequence, found and checked before anything is uploaded.
pub struct LoadedFiles {
    pub files: Files,
    pub method: Method,
    pub context: usize,
}

impl LoadedFiles {
    /// Finds and opens what `arguments` name.
    ///
    /// # Errors
    ///
    /// A usage error for what needs a draft that is not named; [`Error::Option`] for how tokens are chosen; those of
    /// [`Files::open`] and [`Files::check`].
    pub fn open(arguments: &DecodingArguments, talk: Verbosity) -> anyhow::Result<LoadedFiles> {
        let (models, method) = (&arguments.models, arguments.method);
        if let Some(most) = arguments.max_tokens.filter(|&most| most < arguments.min_tokens) {
            return Err(usage("--min-tokens", format!("{} are more than the {most} at most", arguments.min_tokens)));
        }
        if method == Some(Method::Ngram) {
            let files = Files::open(models, false, talk)?;
            return LoadedFiles::new(files, Method::Ngram, arguments, talk);
        }
        let plain = models.drafts(arguments.draft_len).most() == 0 || method == Some(Method::Ar);
        let speculates =
            method.is_some_and(|method| method != Method::Ar) && arguments.draft_len != Some(DraftLength::Fixed(0));
        models.check_draft("--method", speculates)?;
        models.check_draft("--with-ngrams", arguments.with_ngrams)?;
        models.check_draft("--draft-len", !plain)?;
        let files = Files::open(models, !plain, talk)?;
        let method = method.filter(|_| !plain).or(files.methods().last().copied()).unwrap_or(Method::Ar);
        files.check(method)?;
        LoadedFiles::new(files, method, arguments, talk)
    }

    fn new(
        files: Files,
        method: Method,
        arguments: &DecodingArguments,
        talk: Verbosity,
    ) -> anyhow::Result<LoadedFiles> {
        let context = context(&arguments.models, &files, talk);
        let options = arguments.options(method, context);
        options.check()?;
        options.sampling.check_tokens(files.target.config.vocab_size)?;
        if let Some(grammar) = &options.sampling.grammar {
            files.target.text.check_grammar(grammar)?;
        }
        Ok(LoadedFiles { files, method, context })
    }

    /// Uploads the models, and makes a sequence, which measures what passes cost as it writes its first answer.
    pub fn upload(self, device: &Device, arguments: &DecodingArguments, talk: Verbosity) -> Result<(Models, Sequence)> {
        let models = self.files.upload(device, &arguments.models, self.context, talk)?;
        let mut sequence = models.sequence(arguments.options(self.method, self.context))?;
        models.measure_meanwhile(&mut sequence, talk);
        Ok((models, sequence))
    }
}

/// Uploads a model, with a progress bar.
pub fn upload(device: &Device, files: ModelFiles, options: LoadOptions, talk: Verbosity) -> Result<Model> {
    with_progress(device, files, talk, |files, progress| Model::upload(device, files, options, progress))
}

/// Uploads a draft beside its target, with a progress bar.
pub fn upload_draft(
    device: &Device,
    files: ModelFiles,
    target: &Model,
    options: LoadOptions,
    talk: Verbosity,
) -> Result<Model> {
    with_progress(device, files, talk, |files, progress| Model::upload_draft(device, files, target, options, progress))
}

fn with_progress(
    device: &Device,
    files: ModelFiles,
    talk: Verbosity,
    upload: impl FnOnce(ModelFiles, &Progress) -> Result<Model>,
) -> Result<Model> {
    let bar = talk.bar(format!("loading {}", files.name()), "{msg} {wide_bar} {percent:>3} %");
    let report = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let model = upload(files, &report)?;
    bar.finish_and_clear();
    let weights = &model.weights;
    talk.announce(&format!("{}: {} on {}", model.name(), output::bytes(weights.bytes()), device.name()));
    for notice in weights.notices() {
        talk.note(&format!("{}: {notice}", model.name()));
    }
    Ok(model)
}

/// Models on a device.
pub struct Models {
    pub target: Model,
    pub draft: Option<Draft>,
    /// Costs of passes, once they were measured.
    measured: OnceCell<Costs>,
}

impl Models {
    /// A sequence with caches of its own.
    pub fn sequence(&self, options: SequenceOptions) -> Result<Sequence> {
        let room = EngineOptions::default().context(options.context);
        Engine::new(&self.target, self.draft.as_ref(), room)?.add(options)
    }

    /// Tells a sequence that chooses K what passes cost: as measured before on this device, or else anew, once.
    pub fn prepare(&self, sequence: &mut Sequence, talk: Verbosity) -> Result<()> {
        if sequence.options().drafts == DraftLength::Auto { self.tell_costs(sequence, talk) } else { Ok(()) }
    }

    /// Tells a sequence what passes cost, whether it chooses K or not. One whose models were tuned, or measured at an earlier
    /// start, knows.
    pub fn tell_costs(&self, sequence: &mut Sequence, talk: Verbosity) -> Result<()> {
        if sequence.engine().costs().is_some() {
            return Ok(());
        }
        let costs = match self.measured.get() {
            Some(costs) => costs.clone(),
            None => {
                talk.note("measuring what passes cost here, to choose K, once; `pard tune` measures it better");
                let measured = sequence.measure_costs()?;
                self.keep_measured(sequence);
                measured
            }
        };
        sequence.set_costs(costs);
        Ok(())
    }

    /// Has a sequence that chooses K measure what passes cost while it writes, unless that is known.
    fn measure_meanwhile(&self, sequence: &mut Sequence, talk: Verbosity) {
        if sequence.options().drafts == DraftLength::Auto && sequence.engine().costs().is_none() {
            talk.note("the first answer measures what passes cost here, once, so its first tokens are slow");
            sequence.measure_costs_between_rounds();
        }
    }

    /// Keeps what a sequence measured for the next start, if it was all that its engine has to know.
    pub fn keep_measured(&self, sequence: &Sequence) {
        let is_known =
            self.target.pass_cost().is_some() && self.draft.as_ref().is_none_or(|draft| draft.cost.is_some());
        if let Some(costs) = sequence.engine().costs().filter(|_| !is_known && self.measured.get().is_none()) {
            self.measured.get_or_init(|| costs.clone());
            self.keep(costs);
        }
    }

    /// Keeps costs for the next start. Where that cannot be, they are measured again.
    fn keep(&self, costs: &Costs) {
        let _ = Model::keep_pass_cost(&self.target.weights, &costs.target);
        if let Some(draft) = &self.draft {
            let _ = Model::keep_pass_cost(&draft.model, &costs.draft);
        }
    }

    /// The costs of passes, if they were measured at any time.
    pub fn costs(&self, sequence: &Sequence) -> Option<Costs> {
        sequence.engine().costs().or(self.measured.get()).cloned()
    }

    /// Adapter, kernels and sizes behind the numbers of a report.
    pub fn plan(&self, context: usize) -> Value {
        let transformer = &self.target.weights;
        json!({
            "adapter": transformer.device().name(),
            "draft_adapter": self.draft.as_ref().map(|draft| draft.model.device().name()),
            "kernels": transformer.plan().to_string(),
            "tuned": self.target.tuning.is_some(),
            "cache": transformer.plan().cache.name(),
            "weight_bytes": transformer.bytes(),
            "context": context,
        })
    }
}

/// The context that `arguments` ask for; a longer one than the model was made for is worth a word.
pub fn context(arguments: &ModelArguments, files: &Files, talk: Verbosity) -> usize {
    let context = arguments.memory.context(files.target.config.context);
    files.note_long_context(context, talk);
    context
}

/// Opens a model's files, downloaded if need be. A GGUF file that has to be chosen fits `device`.
pub fn open(name: &str, device: &DeviceArguments, talk: Verbosity) -> Result<ModelFiles> {
    ModelFiles::open(&find(name, device, None, talk)?)
}

/// Opens the files of a model or of any draft, whether they are a whole model's or not.
pub fn open_any(name: &str, talk: Verbosity) -> Result<DraftFiles> {
    DraftFiles::open(&find(name, &DeviceArguments::default(), None, talk)?)
}

/// Opens the files of a draft for `target`, downloaded if need be.
pub fn open_draft(name: &str, target: &ModelFiles, device: &DeviceArguments, talk: Verbosity) -> Result<ModelFiles> {
    let path = find(draft_name(name, target, talk)?, device, None, talk)?;
    draft_at(&path, target, StatesChoice::Auto, talk)
}

/// The name of the draft `name` for `target`, which is that of the best one here for `auto`.
fn draft_name<'a>(name: &'a str, target: &ModelFiles, talk: Verbosity) -> Result<&'a str> {
    if name == AUTO { best_here(target, talk) } else { Ok(name) }
}

/// Opens the draft's files at `path`, and checks that it can do without embeddings of its own where it has none. It reads
/// its target's states if `states` and the target allow it.
fn draft_at(path: &Path, target: &ModelFiles, states: StatesChoice, talk: Verbosity) -> Result<ModelFiles> {
    let mut draft = DraftFiles::open(path)?.beside(&target.text);
    tied_draft::check_target(&draft.config, &*draft.checkpoint, &target.config)?;
    let asked = (states == StatesChoice::Off).then(|| "so it was asked for (--target-states off)".to_owned());
    let reason = asked.or_else(|| tied_draft::unfit(&draft.config, &target.config));
    if let Some(reason) = reason.filter(|_| draft.config.target_layers.take().is_some()) {
        talk.note(&format!("{}: {}", draft.name(), tied_draft::independence(&reason)));
    }
    Ok(draft)
}

/// Finds a model, and says which of a repository's GGUF files was chosen, if one was: one that fits `limit`, or else what
/// `device` has.
fn find(name: &str, device: &DeviceArguments, limit: Option<u64>, talk: Verbosity) -> Result<PathBuf> {
    let memory = || limit.or_else(|| device.open().ok()?.memory().total);
    with_downloads(talk, &memory, |options| resolve::find(name, options))
}

/// The newest revision of a repository, downloaded if need be.
pub fn pull(name: &str, talk: Verbosity) -> Result<PathBuf> {
    let memory = || DeviceArguments::default().open().ok()?.memory().total;
    with_downloads(talk, &memory, |options| resolve::pull(name, options))
}

fn with_downloads(
    talk: Verbosity,
    memory: &dyn Fn() -> Option<u64>,
    find: impl Fn(&SourceOptions) -> Result<Found>,
) -> Result<PathBuf> {
    let download = Download { talk, bar: RefCell::default() };
    let found = find(&SourceOptions::from_env().progress(Some(&download)).memory(Some(memory)))?;
    if let Some(notice) = &found.notice {
        talk.note(notice);
    }
    Ok(found.path)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

/// Shows downloads, one file after the other.
struct Download {
    talk: Verbosity,
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
