//! Checkpoints: contents and lookup of a model's files. Nothing here needs a GPU.
//! A [`Checkpoint`] gives a model's tensors, whatever file they lie in. The interchange is f32 row by row: every stored
//! type widens into it exactly, and only a few rows exist at a time.

pub mod config;
pub(crate) mod contents;
pub mod export;
mod families;
pub mod files;
mod folder;
mod generation;
pub mod gguf;
mod gguf_files;
#[cfg(feature = "hub")]
mod hub;
pub mod hub_cache;
pub mod hugging_face;
mod joined;
pub(crate) mod json;
mod lora;
pub mod name;
pub mod options;
pub mod published;
pub mod resolve;
pub mod safetensors;
mod special_tokens;
pub mod storage;
pub mod torch_file;

use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::WeightFormat;

pub use files::{DraftFiles, ModelFiles};

/// Description of a tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name Hugging Face gives it (`model.layers.0.mlp.up_proj.weight`), whatever the file calls it.
    pub name: String,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
    /// The format that it is stored in.
    pub stored: WeightFormat,
    /// Its size in the file.
    pub bytes: u64,
}

/// A model's tensors, read on demand.
pub trait Checkpoint: Send + Sync {
    /// The file or folder, for messages.
    fn path(&self) -> &Path;

    /// All tensors, sorted by name.
    fn tensors(&self) -> &[TensorInfo];

    /// Names of tensors of types that no weight has, which [`Checkpoint::tensors`] leaves out.
    fn other_tensors(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Writes rows `rows` of the matrix `name` to `out`, widened to f32. A vector is a matrix of one row; several matrices in
    /// one tensor lie one below the other.
    ///
    /// **Shapes**: `out` is `rows.len() * columns` long.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`], or [`Error::Damaged`] if the rows lie outside the tensor.
    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()>;

    /// Writes rows `rows` of the matrix `name`, which is stored in blocks of quantised values, to `out`, as stored.
    ///
    /// **Shapes**: `out` is as long as the rows' blocks.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::read_rows`]; [`Error::TensorType`] from a format without such blocks.
    fn read_blocks(&self, name: &str, _rows: Range<usize>, _out: &mut [u8]) -> Result<()> {
        let (path, name) = (self.path().to_owned(), name.to_owned());
        Err(Error::TensorType {
            path,
            name,
            got: "floats".to_owned(),
            supported: "blocks of quantised values".to_owned(),
        })
    }

    /// The ids that `name` holds, a list of I32 or U32; none if there is no such tensor, as in a format without lists.
    ///
    /// # Errors
    ///
    /// [`Error::TensorType`], or [`Error::Damaged`] if it is not a list.
    fn read_ids(&self, _name: &str) -> Result<Option<Vec<u32>>> {
        Ok(None)
    }

    /// Returns the description of `name`, if the file holds it.
    fn find(&self, name: &str) -> Option<&TensorInfo> {
        let tensors = self.tensors();
        tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok().map(|index| &tensors[index])
    }

    /// Returns the description of `name`, which must have the shape `expected`.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensor`], [`Error::TensorShape`].
    fn expect(&self, name: &str, expected: &[usize]) -> Result<&TensorInfo> {
        let info = self
            .find(name)
            .ok_or_else(|| Error::MissingTensor { path: self.path().to_owned(), name: name.to_owned() })?;
        if info.shape == expected {
            return Ok(info);
        }
        Err(Error::TensorShape {
            path: self.path().to_owned(),
            name: name.to_owned(),
            got: info.shape.clone(),
            expected: expected.to_owned(),
        })
    }

    /// The whole vector `name`, which must be `len` long.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::expect`] and [`Checkpoint::read_rows`].
    fn read_vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.expect(name, &[len])?;
        let mut values = vec![0.0; len];
        self.read_rows(name, 0..1, &mut values)?;
        Ok(values)
    }
}

/// Checks that the tensor `name` of `path`, which has `count` rows, has rows `rows`.
fn expect_rows(path: &Path, name: &str, rows: &Range<usize>, count: usize) -> Result<()> {
    if rows.start <= rows.end && rows.end <= count {
        return Ok(());
    }
    let reason = format!("rows {rows:?} of tensor {name:?}, which has {count}");
    Err(Error::Damaged { path: path.to_owned(), reason })
}

/// Checks that `out` has room for `rows` rows of `width`, and no more.
fn expect_out<T>(op: &'static str, out: &[T], rows: usize, width: usize) -> Result<()> {
    if out.len() == rows * width {
        return Ok(());
    }
    Err(Error::Shape { op, tensor: "out", got: vec![out.len()], expected: vec![rows, width] })
}
