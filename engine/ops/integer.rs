//! The product of few rows by quantised weights as integers, shaders/matmul_integer.wgsl, for [`super::Matmul`].
//! Its variants differ in time and in no rounding, as those of the float kernel do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::MOST_ROWS;
use super::variant::Variant;
use crate::error::Result;
use crate::gpu::{Device, Kernel};

/// The kernels of one product by weights of one format.
pub(super) struct Integer {
    device: Device,
    files: Vec<&'static str>,
    /// Those that no variant changes.
    constants: Vec<(&'static str, u32)>,
    /// By variant, compiled on first use.
    kernels: Mutex<HashMap<Variant, Arc<Kernel>>>,
}

impl Integer {
    /// `shared` are the files that the float kernel has too, of the format, of the slices and of what becomes of a sum; `own`
    /// those of the format's integers. `constants` are those that both kernels have whatever the variant.
    pub fn new(
        device: &Device,
        planes: u32,
        [shared, own]: [&[&'static str]; 2],
        constants: &[(&'static str, u32)],
    ) -> Integer {
        let planes_file = if planes == 2 { "planes/two" } else { "planes/one" };
        Integer {
            device: device.clone(),
            files: [&["matmul_integer", planes_file][..], shared, own].concat(),
            constants: [constants, &[("X_ROWS", MOST_ROWS as u32)]].concat(),
            kernels: Mutex::default(),
        }
    }

    /// The kernel that multiplies as `variant` says; where rows are read from is not its to choose. `tail` sums are gathered at
    /// a time.
    pub fn kernel(&self, variant: Variant, tail: u32) -> Result<Arc<Kernel>> {
        let variant = Variant { uniform: false, ..variant };
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(&variant) {
            return Ok(kernel.clone());
        }
        let of_variant =
            [("ROWS", variant.rows), ("BLOCKS", variant.blocks), ("AHEAD", variant.ahead.into()), ("TAIL", tail)];
        let kernel = self.device.kernel(&self.files, &[&of_variant[..], &self.constants].concat())?;
        kernels.insert(variant, kernel.clone());
        Ok(kernel)
    }
}
