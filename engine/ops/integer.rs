//! The product of few rows by quantised weights in integers, shaders/kernels/matmul_integer.wgsl, for
//! [`super::Matmul`]: what the plan has in place of the row kernel for weights that are small integers already. Its
//! rows are those of [`super::QuantiseRows`]. Prompts take the tile kernel as ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::MAX_ROWS;
use super::row_range::RowRange;
use super::variant::Variant;
use crate::error::Result;
use crate::formats::WeightFormat;
use crate::gpu::{Device, Kernel};

/// Sums in workgroup memory while slices are added up: 8 KiB.
const TAIL_SUMS: u32 = 2048;
/// Rows, and weight rows of a lane, beside which it has registers for the next run's weights, too; with more, other
/// subgroups fill the wait.
const BESIDE_NEXT: [u32; 2] = [8, 2];

/// The kernels of one product by weights of one format.
pub(super) struct Integer {
    pub device: Device,
    pub format: WeightFormat,
    /// Signed bytes of a value of x.
    pub planes: u32,
    pub lanes: u32,
    pub slices: u32,
    pub pair: u32,
    /// The shader file of the epilogue.
    pub finish: &'static str,
    pub row_set: RowRange,
    /// Compiled on first use.
    pub kernels: Mutex<HashMap<Variant, Arc<Kernel>>>,
}

impl Integer {
    /// The variant that is meant by `variant`: x lies in storage, and as many rows share registers as there is room for.
    pub fn variant(variant: Variant) -> Variant {
        let rows = if variant.rows > 16 { variant.rows.div_ceil(2) } else { variant.rows };
        let ahead = variant.ahead && rows <= BESIDE_NEXT[0] && variant.blocks <= BESIDE_NEXT[1];
        Variant { rows, uniform: false, ahead, ..variant }
    }

    /// The kernel for a result of [`Integer::variant`].
    pub fn kernel(&self, variant: Variant) -> Result<Arc<Kernel>> {
        let mut compiled = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = compiled.get(&variant) {
            return Ok(kernel.clone());
        }
        let planes = if self.planes == 2 { "planes/two" } else { "planes/one" };
        let slice = if self.device.has_uniform_slices(self.lanes) { "slice/subgroup" } else { "slice/invocation" };
        let own = ["matmul_integer", planes, slice, "shared/row_turn", "shared/slice_sums"];
        let shared = [&own[..], &["shared/matmul", "shared/eight", "shared/step"]].concat();
        let files =
            [&shared[..], self.format.shaders(), &["weights/integer"], self.format.integer_shaders(), &[self.finish]]
                .concat();
        let constants = [
            ("ROWS", variant.rows),
            ("BLOCKS", variant.blocks),
            ("LANES", self.lanes),
            ("SLICES", self.slices),
            ("PAIR", self.pair),
            ("AHEAD", variant.ahead.into()),
            ("X_ROWS", MAX_ROWS as u32),
            ("TAIL", (TAIL_SUMS / (self.lanes * self.slices)).clamp(self.pair, variant.rows * variant.blocks)),
            self.row_set.constant(),
        ];
        let kernel = self.device.kernel(&files, &constants)?;
        compiled.insert(variant, kernel.clone());
        Ok(kernel)
    }
}
