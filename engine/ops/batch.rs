//! Rows of a pass that belong to different sequences, and their tokens: shaders/batch_ids.wgsl.

use super::MAX_ROWS;
use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

/// Sequences that the rows of a pass belong to. A row's result is the same either way, bit for bit.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// One sequence: row r is at position `step.start + r` of slot `step.slot`. The buffer holds a [`super::Step`].
    One(&'a Buffer),
    /// A sequence for each row.
    Many {
        /// Holds a [`super::Step`], of which only the numbers of rows count.
        step: &'a Buffer,
        /// Holds a [`BatchRow`] for each of [`MAX_ROWS`], as [`Rows::buffer`] makes it.
        batch: &'a Buffer,
    },
}

impl<'a> From<&'a Buffer> for Rows<'a> {
    fn from(step: &'a Buffer) -> Rows<'a> {
        Rows::One(step)
    }
}

impl<'a> Rows<'a> {
    /// Room for the rows of a batch's pass.
    ///
    /// # Errors
    ///
    /// As [`Buffer::uniform`].
    pub fn buffer(device: &Device) -> Result<Buffer> {
        Buffer::uniform(device, "batch", &[BatchRow::default(); MAX_ROWS])
    }

    /// Holds a [`super::Step`].
    pub fn step(self) -> &'a Buffer {
        match self {
            Rows::One(step) | Rows::Many { step, .. } => step,
        }
    }

    /// Returns the buffer that kernels bind beside the step.
    pub(super) fn batch(self) -> Option<&'a Buffer> {
        match self {
            Rows::One(_) => None,
            Rows::Many { batch, .. } => Some(batch),
        }
    }

    /// The pieces that say where a row is.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Rows::One(_) => &["rows/one"],
            Rows::Many { .. } => &["rows/many", "shared/batch"],
        }
    }
}

/// One row of a batch's pass, as shaders/shared/batch.wgsl lays it out.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct BatchRow {
    /// Its position in its sequence.
    pub position: u32,
    /// Its sequence's slot of the caches.
    pub slot: u32,
    /// Seed of the noise that its token is drawn by.
    pub seed: u32,
    /// 0: the likeliest token is taken.
    pub temperature: f32,
}

/// Source of a row's token, as shaders/batch_ids.wgsl lays it out.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct BatchSource {
    row: u32,
    token: u32,
}

impl BatchSource {
    /// No row is called so.
    const NO_ROW: u32 = u32::MAX;

    /// The token that the previous pass chose in row `row`.
    pub fn row(row: usize) -> BatchSource {
        BatchSource { row: row as u32, token: 0 }
    }

    /// A token that the host knows.
    pub fn token(token: u32) -> BatchSource {
        BatchSource { row: BatchSource::NO_ROW, token }
    }
}

/// The tokens of a batch's rows, with the operands bound.
pub struct BatchIds {
    dispatch: Dispatch,
}

impl BatchIds {
    /// `ids[r]` = the token that `sources[r]` holds, or the one of `choices` that it names.
    ///
    /// Shapes: `sources` holds a [`BatchSource`] a row, `choices` and `ids` a u32.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Gpu`].
    pub fn new(device: &Device, step: &Buffer, sources: &Buffer, choices: &Buffer, ids: &Buffer) -> Result<BatchIds> {
        let kernel = device.kernel(&["batch_ids", "shared/step"], &[("NO_ROW", BatchSource::NO_ROW)])?;
        Ok(BatchIds { dispatch: kernel.dispatch(device, &[step, sources, choices, ids], [1, 1, 1])? })
    }

    /// Records it for `rows` rows, at most [`MAX_ROWS`].
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        self.dispatch.encode(pass, Work::of(rows, [1, 1], 16 * rows, 0));
    }
}
