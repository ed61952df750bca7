//! Rows of f32 to integers, a step for each 32 values: shaders/kernels/quantise_rows.wgsl. Integer products read them.

use super::{MAX_ROWS, Tensor};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

/// Values that share a step.
pub(super) const BLOCK: usize = 32;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct QuantiseParams {
    blocks: u32,
    padded: u32,
}

/// A quantisation of rows with its operands bound.
pub struct QuantiseRows {
    dispatch: Dispatch,
    padded: usize,
    width: usize,
    planes: u32,
}

impl QuantiseRows {
    /// The rows of `x` as integers of `planes` signed bytes, 2 or 1, written to [`QuantiseRows::rows_of`] of `x`. Each
    /// is off by 1/62000 of the largest of its 32 neighbours at most in two bytes, by 1/250 in one.
    ///
    /// Shapes: `x` is `[rows, width]`; `width` is a multiple of 32.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if it does not fit; as [`Buffer::storage`].
    pub fn new(device: &Device, x: &Tensor, planes: u32) -> Result<QuantiseRows> {
        if x.width == 0 || !x.width.is_multiple_of(BLOCK) || x.rows < MAX_ROWS {
            let expected = vec![x.rows.max(MAX_ROWS), x.width.next_multiple_of(BLOCK).max(BLOCK)];
            return Err(Error::Shape { op: "quantise_rows", tensor: "x", got: vec![x.rows, x.width], expected });
        }
        let padded = padded_blocks(x.width);
        let kernel = device.kernel(&["quantise_rows", "shared/quantise"], &constants(planes))?;
        let params = QuantiseParams { blocks: (x.width / BLOCK) as u32, padded: padded as u32 };
        let params = Buffer::uniform(device, "quantise_rows params", &params)?;
        let dispatch = kernel.dispatch(device, &[&params, &x.buffer, QuantiseRows::rows_of(device, x)?], [1, 1, 1])?;
        Ok(QuantiseRows { dispatch, padded, width: x.width, planes })
    }

    /// Returns the buffer for the integers of `x`'s rows, shared by all products, which run one after the other.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn rows_of<'a>(device: &Device, x: &'a Tensor) -> Result<&'a Buffer> {
        if let Some(buffer) = x.integers.get() {
            return Ok(buffer);
        }
        let buffer = Buffer::storage(device, "quantised rows", QuantiseRows::bytes(x.width))?;
        Ok(x.integers.get_or_init(|| Box::new(buffer)))
    }

    /// Signed bytes of a value.
    pub(super) fn planes(&self) -> u32 {
        self.planes
    }

    /// Device memory of the integers of rows that are `width` wide.
    pub fn bytes(width: usize) -> u64 {
        (MAX_ROWS * row_bytes(width, 2)) as u64
    }

    /// Records the quantisation of the first `rows` rows, 32 at most.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let bytes = rows * (4 * self.width + row_bytes(self.width, self.planes));
        let work = Work::of(rows, [1, self.width], bytes, 4 * rows * self.width);
        self.dispatch.encode_over(pass, [self.padded.div_ceil(64) as u32, rows as u32, 1], work);
    }
}

/// The constants of shared/quantise.wgsl for values of `planes` bytes.
pub(super) fn constants(planes: u32) -> [(&'static str, u32); 2] {
    [("PLANES", planes), ("X_ROWS", MAX_ROWS as u32)]
}

/// Bytes of a row of `width` integers of `planes` bytes, padding included.
pub(super) fn row_bytes(width: usize, planes: u32) -> usize {
    padded_blocks(width) * block_bytes(planes)
}

/// Blocks of a row of integers: products take two at a time.
fn padded_blocks(width: usize) -> usize {
    width.div_ceil(2 * BLOCK) * 2
}

/// Bytes of a block: `planes` for each value, and four words.
fn block_bytes(planes: u32) -> usize {
    planes as usize * BLOCK + 16
}
