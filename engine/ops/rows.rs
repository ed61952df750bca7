//! Rows of a pass: which sequence each belongs to, and which of them choose a token.

use super::MAX_ROWS;
use crate::error::Result;
use crate::gpu::{Buffer, Device};

/// Sequences that the rows of a pass belong to. A row's result is the same either way, bit for bit.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// One sequence: row r is at position `step.start + r` of slot `step.slot`. The buffer holds a [`super::Step`].
    One(&'a Buffer),
    /// Any number of sequences.
    Many {
        /// Holds a [`super::Step`], of which only the numbers of rows count.
        step: &'a Buffer,
        /// Holds a [`PassRow`] for each of [`MAX_ROWS`], as [`PassRow::buffer`] makes it.
        batch: &'a Buffer,
    },
}

impl<'a> From<&'a Buffer> for Rows<'a> {
    fn from(step: &'a Buffer) -> Rows<'a> {
        Rows::One(step)
    }
}

impl<'a> Rows<'a> {
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
            Rows::Many { .. } => &["rows/many", "shared/batch", "shared/pass_row"],
        }
    }
}

/// The pieces that say which sequence an output row is of, and where its choice goes.
pub(super) const OUTPUT_FILES: [&str; 3] = ["shared/output", "shared/batch", "shared/pass_row"];

/// One row of a pass, and one output row, as shaders/shared/pass_row.wgsl lays them out.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct PassRow {
    /// Row r's position in its sequence.
    pub position: u32,
    /// Slot of row r's sequence.
    pub slot: u32,
    /// The row that output r is computed from.
    pub output: u32,
    /// Index of output r's choice: [`CHOICES`] times the turn, and its index among the turn's.
    pub choice: u32,
}

/// Room for the proposals, and for the choices, of one sequence in a round.
pub const CHOICES: usize = MAX_ROWS;

/// The same for shaders.
pub(super) const CHOICES_CONSTANT: (&str, u32) = ("CHOICES", CHOICES as u32);

impl PassRow {
    /// Creates room for the rows of a pass.
    ///
    /// # Errors
    ///
    /// As [`Buffer::shared`].
    pub fn buffer(device: &Device) -> Result<Buffer> {
        Buffer::shared::<[PassRow; MAX_ROWS]>(device, "batch")
    }

    /// Creates room for the choices of a pass, one for each of [`CHOICES`] of [`MAX_ROWS`] turns.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn choices(device: &Device, label: &str) -> Result<Buffer> {
        Buffer::storage(device, label, (4 * CHOICES * MAX_ROWS) as u64)
    }

    /// Rows of one sequence, from position `start` of slot `slot` on; those from row `first_output` on choose.
    pub fn of_one(slot: usize, start: usize, first_output: usize) -> [PassRow; MAX_ROWS] {
        std::array::from_fn(|row| PassRow {
            position: (start + row) as u32,
            slot: slot as u32,
            output: (first_output + row) as u32,
            choice: row as u32,
        })
    }
}
