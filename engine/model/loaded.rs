//! A model ready to run: its weights on a device, and what turns text into its tokens and back.

use std::path::PathBuf;
use std::sync::Arc;

use super::transformer::{Progress, Transformer};
use super::tuning::Tuning;
use super::weight_choice::WeightChoice;
use crate::checkpoint::files::{DraftFiles, ModelFiles};
use crate::checkpoint::options::SourceOptions;
use crate::checkpoint::resolve;
use crate::error::Result;
use crate::gpu::{CacheFormat, Device, Plan, ProductChoice, Products, QuantisedChoice, QuantisedProducts};
use crate::text::ChatTokenizer;

/// How a model is loaded. The default keeps weights as stored and caches in 16 bits, and multiplies by plain kernels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// How weights are kept on the device.
    pub weights: WeightChoice,
    /// How keys and values are kept.
    pub cache: CacheFormat,
    /// What multiplies matrices.
    pub products: ProductChoice,
    /// What multiplies quantised matrices, where products are plain.
    pub quantised: QuantisedChoice,
    /// Whether what was measured of this model on this adapter and kept in the user's cache is left unused.
    pub ignore_tuning: bool,
}

impl LoadOptions {
    /// The numeric plan of a model that is loaded so.
    ///
    /// # Errors
    ///
    /// Those of [`Products::of`] and [`QuantisedProducts::of`].
    pub fn plan(&self, device: &Device) -> Result<Plan> {
        let products = Products::of(self.products, device)?;
        let quantised = QuantisedProducts::of(self.quantised, products, device)?;
        Ok(Plan { cache: self.cache, products, quantised, ..device.default_plan() })
    }
}

/// A model on a device.
pub struct Model {
    /// Its weights, shared by all decoders that run it.
    pub transformer: Arc<Transformer>,
    /// What was measured of it on this adapter, if anything was.
    pub tuning: Option<Tuning>,
    /// Between text and its tokens.
    pub text: ChatTokenizer,
}

impl Model {
    /// Finds the model `name` (the alias `smollm2`, a folder, a GGUF file, a repository of the Hugging Face hub) as the
    /// environment says, and uploads it.
    ///
    /// # Errors
    ///
    /// Those of [`resolve::resolve`], [`ModelFiles::open`] and [`Model::upload`].
    pub fn load(device: &Device, name: &str, options: LoadOptions) -> Result<Model> {
        let path = resolve::resolve(name, &SourceOptions::from_env())?;
        Model::upload(device, ModelFiles::open(&path)?, options, &|_, _| ())
    }

    /// Finds and uploads a draft for `target`: a whole model like any other, or one that holds layers only and uses the
    /// embeddings and the tokenizer of the target. `device` may be another than the target's.
    ///
    /// # Errors
    ///
    /// Those of [`resolve::resolve`], [`DraftFiles::open`] and [`Model::upload_draft`].
    pub fn load_draft(device: &Device, name: &str, target: &Model, options: LoadOptions) -> Result<Model> {
        let path = resolve::resolve(name, &SourceOptions::from_env())?;
        let files = DraftFiles::open(&path)?.beside(&target.text);
        Model::upload_draft(device, files, target, options, &|_, _| ())
    }

    /// Uploads a model whose files are open.
    ///
    /// # Errors
    ///
    /// Those of [`LoadOptions::plan`] and [`Transformer::upload`].
    pub fn upload(device: &Device, files: ModelFiles, options: LoadOptions, progress: &Progress) -> Result<Model> {
        let plan = options.plan(device)?;
        let transformer =
            Transformer::upload(device, &plan, &files.config, &*files.checkpoint, options.weights, progress)?;
        Ok(Model::tuned(transformer, files.text, options))
    }

    /// Uploads a draft for `target` whose files are open.
    ///
    /// # Errors
    ///
    /// Those of [`LoadOptions::plan`] and [`Transformer::upload_draft`].
    pub fn upload_draft(
        device: &Device,
        files: ModelFiles,
        target: &Model,
        options: LoadOptions,
        progress: &Progress,
    ) -> Result<Model> {
        let plan = options.plan(device)?;
        let (config, checkpoint, target) = (&files.config, &*files.checkpoint, &target.transformer);
        let transformer =
            Transformer::upload_draft(device, &plan, config, checkpoint, target, options.weights, progress)?;
        Ok(Model::tuned(transformer, files.text, options))
    }

    /// Applies what was measured of it before.
    pub(super) fn tuned(mut transformer: Transformer, text: ChatTokenizer, options: LoadOptions) -> Model {
        let folder = Model::tuning_folder().filter(|_| !options.ignore_tuning);
        let tuning = folder.and_then(|folder| Tuning::load(&folder, &transformer));
        if let Some(tuning) = &tuning {
            tuning.apply(&mut transformer);
        }
        Model { transformer: Arc::new(transformer), tuning, text }
    }

    /// Where tables of measurements are kept, if there is a place for caches.
    pub fn tuning_folder() -> Option<PathBuf> {
        SourceOptions::from_env().cache.map(|cache| cache.join("tuning"))
    }

    /// What to call it.
    pub fn name(&self) -> &str {
        &self.text.model_name
    }
}
