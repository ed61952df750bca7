//! A model ready to run: its weights on a device, and what turns text into its tokens and back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::files::ModelFiles;
use super::source::{self, SourceOptions};
use super::transformer::{Progress, Transformer, WeightChoice};
use crate::error::Result;
use crate::gpu::{CacheFormat, Device, Plan, ProductChoice, Products};
use crate::text::{ChatTemplate, Message, Rendering, Special, Tokenizer};

/// How a model is loaded. The default keeps weights as stored and caches in 16 bits, and multiplies by plain kernels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// How weights are kept on the device.
    pub weights: WeightChoice,
    /// How keys and values are kept.
    pub cache: CacheFormat,
    /// What multiplies matrices.
    pub products: ProductChoice,
}

impl LoadOptions {
    /// The numeric plan of a model that is loaded so.
    ///
    /// **Errors**: those of [`Products::of`].
    pub fn plan(&self, device: &Device) -> Result<Plan> {
        let products = Products::of(self.products, device)?;
        Ok(Plan { cache: self.cache, products, ..device.default_plan() })
    }
}

/// A model on a device.
pub struct Model {
    /// What to call it.
    pub name: String,
    /// Its weights, shared by all decoders that run it.
    pub transformer: Arc<Transformer>,
    /// Between text and tokens.
    pub tokenizer: Tokenizer,
    /// The tokens that end an answer.
    pub stop_tokens: Vec<u32>,
    chat_template: Option<String>,
    special_tokens: BTreeMap<String, String>,
}

impl Model {
    /// Finds the model `name` (the alias `smollm2`, a folder, a GGUF file, a repository of the Hugging Face hub) as the
    /// environment says, and uploads it.
    ///
    /// **Errors**: those of [`source::resolve`], [`ModelFiles::open`] and [`Model::upload`].
    pub fn load(device: &Device, name: &str, options: LoadOptions) -> Result<Model> {
        let path = source::resolve(name, &SourceOptions::from_env())?;
        Model::upload(device, ModelFiles::open(&path)?, options, &|_, _| ())
    }

    /// Uploads a model whose files are open.
    ///
    /// **Errors**: those of [`LoadOptions::plan`] and [`Transformer::upload`].
    pub fn upload(device: &Device, files: ModelFiles, options: LoadOptions, progress: &Progress) -> Result<Model> {
        let plan = options.plan(device)?;
        let transformer =
            Transformer::upload(device, &plan, &files.config, &*files.checkpoint, options.weights, progress)?;
        Ok(Model {
            name: files.name,
            transformer: Arc::new(transformer),
            tokenizer: files.tokenizer,
            stop_tokens: files.stop_tokens,
            chat_template: files.chat_template,
            special_tokens: files.special_tokens,
        })
    }

    /// Whether the model comes with a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.chat_template.is_some()
    }

    /// The tokens of plain text, with the special tokens that the tokenizer itself adds.
    ///
    /// **Errors**: [`crate::Error::Tokenizer`], [`crate::Error::TokenRange`].
    pub fn text_tokens(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode(text, Special::Add)
    }

    /// The tokens of a conversation, rendered by the model's own template.
    ///
    /// **Errors**: [`crate::Error::Template`] if there is none or it fails; as [`Model::text_tokens`].
    pub fn chat_tokens(&self, messages: &[Message], rendering: Rendering) -> Result<Vec<u32>> {
        let template = ChatTemplate::of_model(&self.name, self.chat_template.as_deref(), &self.special_tokens)?;
        let text = template.render(messages, rendering)?;
        // The template writes the special tokens itself.
        self.tokenizer.encode(&text, Special::Keep)
    }
}
