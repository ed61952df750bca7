//! A checkpoint that lies in memory, for tests that have no business with files.

use std::ops::Range;
use std::path::Path;

use pard::checkpoint::{Checkpoint, TensorInfo};
use pard::{Error, Result, WeightFormat};

use super::tiny_model::Tensors;

/// Tensors that report themselves as BF16, which their values fit.
pub struct Memory {
    tensors: Tensors,
    infos: Vec<TensorInfo>,
    ids: Option<(&'static str, Vec<u32>)>,
}

impl Memory {
    pub fn new(tensors: Tensors) -> Self {
        Self::with_ids(tensors, None)
    }

    /// With a list of ids by its name.
    pub fn with_ids(tensors: Tensors, ids: Option<(&'static str, Vec<u32>)>) -> Self {
        let info = |(name, stored): (&String, &super::tiny_model::Stored)| TensorInfo {
            name: name.clone(),
            shape: stored.shape.clone(),
            stored: WeightFormat::Bf16,
            bytes: 2 * stored.values.len() as u64,
        };
        let infos = tensors.iter().map(info).collect();
        Self { tensors, infos, ids }
    }
}

impl Checkpoint for Memory {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let stored = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::MissingTensor { path: self.path().to_owned(), name: name.to_owned() })?;
        let width = *stored.shape.last().expect("a tensor has a shape");
        out.copy_from_slice(&stored.values[rows.start * width..rows.end * width]);
        Ok(())
    }

    fn read_ids(&self, name: &str) -> Result<Option<Vec<u32>>> {
        Ok(self.ids.as_ref().filter(|(known, _)| *known == name).map(|(_, ids)| ids.clone()))
    }
}
