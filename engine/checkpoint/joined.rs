//! A model's tensors with those of a second file beside them.

use std::ops::Range;
use std::path::Path;

use super::torch_file::TorchFile;
use super::{Checkpoint, TensorInfo};
use crate::error::Result;

/// Tensors of a folder, and those of `second` that it does not have.
pub(super) struct Joined {
    first: Box<dyn Checkpoint>,
    second: TorchFile,
    tensors: Vec<TensorInfo>,
}

impl Joined {
    pub fn new(first: Box<dyn Checkpoint>, second: TorchFile) -> Joined {
        let added = second.tensors().iter().filter(|tensor| first.find(&tensor.name).is_none());
        let mut tensors: Vec<TensorInfo> = first.tensors().iter().chain(added).cloned().collect();
        tensors.sort_by(|one, other| one.name.cmp(&other.name));
        Joined { first, second, tensors }
    }

    fn holder(&self, name: &str) -> &dyn Checkpoint {
        match self.first.find(name).is_none() && self.second.find(name).is_some() {
            true => &self.second,
            false => &*self.first,
        }
    }
}

impl Checkpoint for Joined {
    fn path(&self) -> &Path {
        self.first.path()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn other_tensors(&self) -> Vec<&str> {
        self.first.other_tensors()
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.holder(name).read_rows(name, rows, out)
    }

    fn read_blocks(&self, name: &str, rows: Range<usize>, out: &mut [u8]) -> Result<()> {
        self.holder(name).read_blocks(name, rows, out)
    }

    fn read_ids(&self, name: &str) -> Result<Option<Vec<u32>>> {
        self.first.read_ids(name)
    }

    fn expect(&self, name: &str, expected: &[usize]) -> Result<&TensorInfo> {
        self.holder(name).expect(name, expected)
    }
}
