//! Some layers of a model on the device, which take turns in place of all: a pass over them takes as long as a pass
//! over the whole model, and most of the upload is spared.

use std::ops::Range;
use std::path::Path;

use super::memory_plan::MemoryPlan;
use super::weights::{Progress, Weights};
use super::{LoadOptions, Model};
use crate::checkpoint::files::ModelFiles;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::{Error, Result};
use crate::gpu::Device;

/// Minimum size in bytes of the uploaded layers, of which there are at least two: more than any cache holds, so that
/// each pass reads them from memory, as it would all layers.
const COLD_BYTES: u64 = 128 << 20;
/// Prefix of the names of the layers' tensors.
const LAYERS: &str = "model.layers.";

impl Model {
    /// Uploads a sample of the model whose files are open, for measurements only: what it computes means nothing. A draft
    /// gets the sample of its target, whose embeddings it may share.
    ///
    /// # Errors
    ///
    /// Those of [`LoadOptions::plan`], [`MemoryPlan::new`] and [`Weights::upload_draft`].
    pub fn sample(device: &Device, files: &ModelFiles, options: LoadOptions, target: Option<&Model>) -> Result<Model> {
        let plan = options.plan(device)?;
        let (config, checkpoint, choice) = (&files.config, &*files.checkpoint, options.dtype);
        let layers = MemoryPlan::new(config, checkpoint, choice, None)?.sample_layers(&plan, COLD_BYTES);
        let some = config.of_layers(&layers);
        let sample = Sample::new(checkpoint, layers);
        let silent: &Progress = &|_, _| ();
        let mut model = match target.map(|target| &target.weights) {
            Some(target) => Weights::upload_draft(device, &plan, &some, &sample, target, choice, silent)?,
            None => Weights::upload(device, &plan, &some, &sample, choice, silent)?,
        };
        model.config.layers = config.layers;
        Ok(Model::tuned(model, files.text.clone(), options))
    }
}

/// A checkpoint of some layers of another.
struct Sample<'a> {
    whole: &'a dyn Checkpoint,
    /// The index of each layer in the other checkpoint.
    layers: Vec<usize>,
    tensors: Vec<TensorInfo>,
}

impl<'a> Sample<'a> {
    fn new(whole: &'a dyn Checkpoint, layers: Vec<usize>) -> Sample<'a> {
        let renamed = |tensor: &TensorInfo| -> Vec<TensorInfo> {
            let Some((layer, part)) = split(&tensor.name) else { return vec![tensor.clone()] };
            let places = layers.iter().enumerate().filter(|(_, chosen)| **chosen == layer);
            places.map(|(place, _)| TensorInfo { name: format!("{LAYERS}{place}.{part}"), ..tensor.clone() }).collect()
        };
        let mut tensors: Vec<TensorInfo> = whole.tensors().iter().flat_map(renamed).collect();
        tensors.sort_by(|one, other| one.name.cmp(&other.name));
        Sample { whole, layers, tensors }
    }

    /// Returns the name of tensor `name` in the other checkpoint.
    fn original(&self, name: &str) -> Result<String> {
        let Some((place, part)) = split(name) else { return Ok(name.to_owned()) };
        match self.layers.get(place) {
            Some(layer) => Ok(format!("{LAYERS}{layer}.{part}")),
            None => Err(Error::MissingTensor { path: self.path().to_owned(), name: name.to_owned() }),
        }
    }
}

/// The layer of a tensor, and its name there.
fn split(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix(LAYERS)?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

impl Checkpoint for Sample<'_> {
    fn path(&self) -> &Path {
        self.whole.path()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.whole.read_rows(&self.original(name)?, rows, out)
    }

    fn read_blocks(&self, name: &str, rows: Range<usize>, out: &mut [u8]) -> Result<()> {
        self.whole.read_blocks(&self.original(name)?, rows, out)
    }

    fn read_ids(&self, name: &str) -> Result<Option<Vec<u32>>> {
        self.whole.read_ids(name)
    }
}
