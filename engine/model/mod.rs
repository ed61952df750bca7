//! Models on the GPU: their weights, their caches, and the forward pass.

mod autotune;
mod layer_subset;
mod loader;
pub(crate) mod made;
mod memory_plan;
mod pass_cost;
pub(crate) mod pass_hook;
pub(crate) mod rope_table;
pub(crate) mod runner;
pub(crate) mod sampler;
pub(crate) mod submit_pace;
pub(crate) mod target_states;
pub(crate) mod tensor_map;
pub(crate) mod tied_draft;
mod weight_dtype;
pub(crate) mod weights;

use std::path::PathBuf;
use std::sync::Arc;

use crate::checkpoint::config::Config;
use crate::checkpoint::files::{DraftFiles, ModelFiles};
use crate::checkpoint::options::{Found, SourceOptions};
use crate::checkpoint::resolve;
use crate::error::Result;
use crate::gpu::{CacheFormat, Device, KernelPlan, MatmulChoice, MatmulPath, QuantisedChoice, QuantisedProducts};
use crate::text::ChatTokenizer;

pub use autotune::{Choice, KeepGoing, LeftOut, Measured, Tuning};
pub use memory_plan::{MemoryEstimate, MemoryPlan};
pub(crate) use pass_cost::MEASURED_ROWS;
pub use pass_cost::PassCost;
pub(crate) use pass_hook::Batching;
pub(crate) use runner::ModelRunner;
pub(crate) use sampler::{Sampler, SamplerBuffers, Stages, log_probabilities};
pub(crate) use target_states::{Features, Hook, Pair, TargetStates, read_states};
pub use weight_dtype::WeightDtype;
pub(crate) use weights::attention_shape;
pub use weights::{Progress, Weights};

/// Choice of whether a draft reads the hidden states of its target, if it was made to (PARD-2's target-dependent mode).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StatesChoice {
    /// It does where the target has the states that it was made for.
    #[default]
    Auto,
    /// It does not, and its projection is not read (PARD-2's target-independent mode).
    Off,
}

/// Options for loading a model. The default keeps weights as stored and caches in 16 bits, and uses plain kernels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Format of the weights on the device.
    pub dtype: WeightDtype,
    /// Format of keys and values.
    pub cache: CacheFormat,
    /// Kernels used for matrix products.
    pub products: MatmulChoice,
    /// Kernels used for quantised matrices, where products are plain.
    pub quantised: QuantisedChoice,
    /// Use of the target's hidden states by a draft.
    pub target_states: StatesChoice,
    /// Set to ignore measurements of this model on this adapter in the user's cache.
    pub ignore_tuning: bool,
}

crate::builder::setters! {
    LoadOptions {
        dtype: WeightDtype,
        cache: CacheFormat,
        products: MatmulChoice,
        quantised: QuantisedChoice,
        target_states: StatesChoice,
        ignore_tuning: bool,
    }
}

impl LoadOptions {
    /// The numeric plan of a model that is loaded so.
    ///
    /// # Errors
    ///
    /// Those of [`MatmulPath::of`] and [`QuantisedProducts::of`].
    pub fn plan(&self, device: &Device) -> Result<KernelPlan> {
        let products = MatmulPath::of(self.products, device)?;
        let quantised = QuantisedProducts::of(self.quantised, products, device)?;
        Ok(KernelPlan { cache: self.cache, products, quantised, ..device.default_plan() })
    }
}

/// A model on a device.
pub struct Model {
    /// Its weights, shared by all decoders that run it.
    pub weights: Arc<Weights>,
    /// Measurements of it on this adapter, if there are any.
    pub tuning: Option<Tuning>,
    /// Durations of its passes, if they were kept without the rest.
    kept: Option<PassCost>,
    /// Tokenizer and chat template.
    pub text: ChatTokenizer,
}

impl Model {
    /// Finds the model `name` (the alias `smollm2`, a folder, a GGUF file, a repository of the Hugging Face hub, as
    /// [`resolve::find`] has them) as the environment says, and uploads it. Where a repository holds several GGUF files and
    /// none is named, the choice is among the weights' notices.
    ///
    /// # Errors
    ///
    /// Those of [`resolve::find`], [`ModelFiles::open`] and [`Model::upload`].
    pub fn load(device: &Device, name: &str, options: LoadOptions) -> Result<Model> {
        let found = find(device, name)?;
        let model = Model::upload(device, ModelFiles::open(&found.path)?, options, &|_, _| ())?;
        Ok(model.noting(found.notice))
    }

    /// Finds and uploads a draft for `target`: a whole model like any other, or one that holds layers only and uses the
    /// embeddings and the tokenizer of the target. `device` may be another than the target's.
    ///
    /// # Errors
    ///
    /// Those of [`resolve::find`], [`DraftFiles::open`] and [`Model::upload_draft`].
    pub fn load_draft(device: &Device, name: &str, target: &Model, options: LoadOptions) -> Result<Model> {
        let found = find(device, name)?;
        let files = DraftFiles::open(&found.path)?.beside(&target.text);
        Ok(Model::upload_draft(device, files, target, options, &|_, _| ())?.noting(found.notice))
    }

    /// Uploads a model whose files are open.
    ///
    /// # Errors
    ///
    /// Those of [`LoadOptions::plan`] and [`Weights::upload`].
    pub fn upload(device: &Device, files: ModelFiles, options: LoadOptions, progress: &Progress) -> Result<Model> {
        let plan = options.plan(device)?;
        let weights = Weights::upload(device, &plan, &files.config, &*files.checkpoint, options.dtype, progress)?;
        Ok(Model::tuned(weights, files.text, options))
    }

    /// Uploads a draft for `target` whose files are open.
    ///
    /// # Errors
    ///
    /// Those of [`LoadOptions::plan`] and [`Weights::upload_draft`].
    pub fn upload_draft(
        device: &Device,
        files: ModelFiles,
        target: &Model,
        options: LoadOptions,
        progress: &Progress,
    ) -> Result<Model> {
        let plan = options.plan(device)?;
        let (config, asked) = match (&files.config.target_layers, options.target_states) {
            (Some(_), StatesChoice::Off) => (Config { target_layers: None, ..files.config }, true),
            _ => (files.config, false),
        };
        let (checkpoint, target) = (&*files.checkpoint, &target.weights);
        let mut weights = Weights::upload_draft(device, &plan, &config, checkpoint, target, options.dtype, progress)?;
        if asked {
            weights.notices.push(tied_draft::independence("so it was asked for"));
        }
        Ok(Model::tuned(weights, files.text, options))
    }

    /// Adds a notice to those of its weights, which nothing else holds yet.
    fn noting(mut self, notice: Option<String>) -> Model {
        if let Some(weights) = Arc::get_mut(&mut self.weights) {
            weights.notices.extend(notice);
        }
        self
    }

    /// Applies earlier measurements of it, if there are any.
    fn tuned(mut weights: Weights, text: ChatTokenizer, options: LoadOptions) -> Model {
        let folder = Model::tuning_folder().filter(|_| !options.ignore_tuning);
        let tuning = folder.as_ref().and_then(|folder| Tuning::load(folder, &weights));
        let kept = folder.filter(|_| tuning.is_none()).and_then(|folder| autotune::kept(&folder, &weights));
        if let Some(tuning) = &tuning {
            tuning.apply(&mut weights);
        }
        Model { weights: Arc::new(weights), tuning, kept, text }
    }

    /// Returns the folder of measurement tables, if there is a folder for caches.
    pub fn tuning_folder() -> Option<PathBuf> {
        SourceOptions::from_env().cache.map(|cache| cache.join("tuning"))
    }

    /// Durations of its passes, if it was tuned on this adapter, or if [`Model::keep_pass_cost`] has kept them.
    pub fn pass_cost(&self) -> Option<PassCost> {
        self.tuning.as_ref().map(Tuning::pass_cost).or_else(|| self.kept.clone())
    }

    /// Keeps durations of passes of `model`, for whoever loads it next on this adapter. Nothing is kept where there is no
    /// folder for caches.
    ///
    /// # Errors
    ///
    /// [`Error::Write`](crate::Error::Write).
    pub fn keep_pass_cost(model: &Weights, cost: &PassCost) -> Result<()> {
        Model::tuning_folder().map_or(Ok(()), |folder| autotune::keep(&folder, model, cost))
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.text.model_name
    }
}

/// Finds the model `name` as the environment says; a GGUF file that has to be chosen fits `device`.
fn find(device: &Device, name: &str) -> Result<Found> {
    resolve::find(name, &SourceOptions::from_env().memory(Some(&|| device.memory().total)))
}
