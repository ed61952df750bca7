//! `y[r] = x[r] / √(mean(x[r]²) + ε) · gain`: shaders/kernels/rms_norm.wgsl.

use super::quantise_rows::{self, QuantiseRows};
use super::{MAX_ROWS, RowRange, Tensor};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct RmsNormParams {
    pieces: u32,
    epsilon: f32,
}

/// The rows of `x` that are normalised.
#[derive(Clone, Copy)]
pub enum NormRows<'a> {
    /// Those of the step: all, or from `step.first_output` on.
    Step(RowRange),
    /// The output rows that [`super::PassRow::buffer`]'s rows name.
    Listed(&'a Buffer),
}

impl From<RowRange> for NormRows<'_> {
    fn from(row_range: RowRange) -> Self {
        NormRows::Step(row_range)
    }
}

/// A normalisation with its operands bound.
pub struct RmsNorm {
    dispatch: Dispatch,
    width: usize,
    /// Bytes of a row of integers, if it writes them.
    integer_bytes: usize,
}

impl RmsNorm {
    /// `y[r] = x[r] / √(mean(x[r]²) + ε) · gain`. With [`RowRange::Outputs`], row 0 of `y` is row `step.first_output`
    /// of `x`.
    ///
    /// Shapes: `x`, `y` are `[rows, width]`, `gain` is `[1, width]`; `width` is a multiple of 4.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    /// Source: arXiv:1910.07467.
    pub fn new(
        device: &Device,
        step: &Buffer,
        [x, y]: [&Tensor; 2],
        gain: &Tensor,
        epsilon: f32,
        row_set: RowRange,
    ) -> Result<RmsNorm> {
        RmsNorm::quantising(device, step, [x, y], gain, epsilon, row_set, None)
    }

    /// As [`RmsNorm::new`], for the rows `rows`; with `planes`, also writes the first [`MAX_ROWS`] rows of `y` as
    /// integers of so many signed bytes, bit for bit as [`QuantiseRows`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] as there, and if the width is no multiple of 32; as [`Buffer::storage`].
    pub fn quantising<'a>(
        device: &Device,
        step: &Buffer,
        [x, y]: [&Tensor; 2],
        gain: &Tensor,
        epsilon: f32,
        rows: impl Into<NormRows<'a>>,
        planes: Option<u32>,
    ) -> Result<RmsNorm> {
        let multiple = if planes.is_some() { quantise_rows::BLOCK } else { 4 };
        if !x.width.is_multiple_of(multiple) {
            let expected = vec![x.rows, x.width.next_multiple_of(multiple)];
            return Err(Error::Shape { op: "rms_norm", tensor: "x", got: vec![x.rows, x.width], expected });
        }
        gain.expect("rms_norm", "gain", 1, x.width)?;
        y.expect("rms_norm", "y", MAX_ROWS, x.width)?;
        // A CPU's barriers cost more than the work they would share out.
        let lanes = if device.is_software() { 8 } else { 64 };
        let mut files = vec!["rms_norm", "shared/row_scale", "shared/reduce", "shared/step"];
        let mut constants = vec![("LANES", lanes)];
        let rows = rows.into();
        match rows {
            NormRows::Step(row_range) => {
                files.push("norm_rows/step");
                constants.push(row_range.constant());
            }
            NormRows::Listed(_) => files.extend(["norm_rows/listed", "shared/batch", "shared/pass_row"]),
        }
        match planes {
            None => files.push("norm/store"),
            Some(planes) => {
                files.extend(["norm/quantise", "shared/quantise"]);
                constants.extend(quantise_rows::constants(planes));
            }
        }
        let kernel = device.kernel(&files, &constants)?;
        let params = RmsNormParams { pieces: (x.width / 4) as u32, epsilon };
        let params = Buffer::uniform(device, "rms_norm params", &params)?;
        let mut operands = vec![&params, step, &x.buffer, &gain.buffer, &y.buffer];
        if planes.is_some() {
            operands.push(QuantiseRows::rows_of(device, y)?);
        }
        if let NormRows::Listed(batch) = rows {
            operands.push(batch);
        }
        let dispatch = kernel.dispatch(device, &operands, [1, 1, 1])?;
        let integer_bytes = planes.map_or(0, |planes| quantise_rows::row_bytes(x.width, planes));
        Ok(RmsNorm { dispatch, width: x.width, integer_bytes })
    }

    /// Records the normalisation of `rows` rows (of the row set).
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let bytes = 4 * (2 * rows + 1) * self.width + rows.min(MAX_ROWS) * self.integer_bytes;
        let work = Work::of(rows, [1, self.width], bytes, 4 * rows * self.width);
        self.dispatch.encode_over(pass, [rows as u32, 1, 1], work);
    }
}
