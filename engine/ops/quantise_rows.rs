//! Rows of activations as integers, for products by quantised weights: shaders/quantise_rows.wgsl.

use std::sync::Arc;

use super::{MOST_ROWS, Tensor};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct QuantiseRowsParams {
    blocks: u32,
}

/// Values that share a step.
pub(super) const BLOCK: usize = 32;
/// Threads of a workgroup.
const LANES: u32 = 64;

/// Rows of integers, and the kernel that writes them, bound.
pub struct QuantiseRows {
    dispatch: Dispatch,
    rows: Buffer,
    planes: u32,
    width: usize,
}

impl QuantiseRows {
    /// Rounds each block of 32 values of `x` to integers of `planes` bytes in steps of the block's own size: with `M` its
    /// largest magnitude, a value is off by `M / 65278` at most with two bytes and by `M / 254` with one, but for the rounding
    /// of f32.
    ///
    /// Shapes: `x` is `[rows, width]`; `width` is a multiple of 32. There is room for [`MOST_ROWS`] rows.
    /// Errors: [`Error::Shape`] if they do not fit, [`Error::Option`] if `planes` is neither 1 nor 2; [`Error::OutOfMemory`].
    pub fn new(device: &Device, planes: u32, x: &Tensor) -> Result<QuantiseRows> {
        x.expect("quantise_rows", "x", MOST_ROWS, x.width.next_multiple_of(BLOCK))?;
        if !(1..=2).contains(&planes) {
            let reason = format!("integer products take values of 1 or 2 bytes, not {planes}");
            return Err(Error::Option { option: "quantised", reason });
        }
        let blocks = x.width / BLOCK;
        let constants = [("PLANES", planes), ("X_ROWS", MOST_ROWS as u32), ("LANES", LANES)];
        let kernel = device.kernel(&["quantise_rows"], &constants)?;
        let params = Buffer::uniform(device, "quantise_rows params", &QuantiseRowsParams { blocks: blocks as u32 })?;
        // Weights come two blocks at a time in some formats: the block past the end of a row stays zeros.
        let bytes = blocks.next_multiple_of(2) * MOST_ROWS * Self::block_bytes(planes);
        let rows = Buffer::storage(device, "quantised rows", bytes as u64)?;
        let dispatch = kernel.dispatch(device, &[&params, &x.buffer, &rows], [1, 1, 1])?;
        Ok(QuantiseRows { dispatch, rows, planes, width: x.width })
    }

    /// Records it for the first `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let blocks = self.width / BLOCK;
        let bytes = rows * (4 * self.width + blocks * Self::block_bytes(self.planes));
        let work = Work::of(rows, [1, self.width], bytes, 4 * rows * self.width);
        self.dispatch.encode_over(pass, [(blocks as u32).div_ceil(LANES), rows as u32, 1], work);
    }

    /// The integers, `[blocks, MOST_ROWS]` blocks as shaders/planes/ lays them out.
    pub fn rows(&self) -> &Buffer {
        &self.rows
    }

    /// Bytes of a block: 16 for each half of each plane, and 16 for its step and sums.
    fn block_bytes(planes: u32) -> usize {
        16 * (2 * planes as usize + 1)
    }
}

impl Tensor {
    /// The rows as integers of `planes` bytes, made when first asked for. Products of the same rows share them.
    pub(super) fn quantised(&self, device: &Device, planes: u32) -> Result<Arc<QuantiseRows>> {
        if let Some(rows) = self.quantised.get().filter(|rows| rows.planes == planes) {
            return Ok(rows.clone());
        }
        let rows = Arc::new(QuantiseRows::new(device, planes, self)?);
        // Rows of another size that are there already stay: they belong to a product of another plan.
        let _ = self.quantised.set(rows.clone());
        Ok(rows)
    }
}
