//! `y[r] = W[ids[r]]`: shaders/kernels/embedding.wgsl.

use super::matrix::Matrix;
use super::{MAX_ROWS, Tensor};
use crate::error::Result;
use crate::formats::PIECE;
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct EmbeddingParams {
    pieces: u32,
    rows_out: u32,
    first_out: u32,
    vocab: u32,
    mask: u32,
}

/// The row of one id that is not the table's: the mask token of a draft that has no table of its own.
#[derive(Clone, Copy)]
pub struct MaskRow<'a> {
    /// The id. The table need not have a row for it.
    pub id: u32,
    /// `[1, width]`.
    pub row: &'a Tensor,
}

/// An embedding table with its ids and output bound.
pub struct Embedding {
    parts: Vec<Dispatch>,
    workgroups: u32,
    width: usize,
    /// Bytes of a row of the table.
    row_bytes: usize,
}

impl Embedding {
    /// `y[r] = W[ids[r]]`, and the mask's row where `ids[r]` is its id.
    ///
    /// Shapes: `W` is `[vocab, width]`, `ids` is `[rows]` of u32, `y` is `[rows, width]`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if they do not fit.
    pub fn new(
        device: &Device,
        weights: &Matrix,
        mask: Option<MaskRow>,
        ids: &Buffer,
        y: &Tensor,
    ) -> Result<Embedding> {
        y.expect("embedding", "y", MAX_ROWS, weights.columns())?;
        let pieces = (weights.columns() / PIECE) as u32;
        if let Some(mask) = &mask {
            mask.row.expect("embedding", "mask", 1, weights.columns())?;
        }
        let mask_file = if mask.is_some() { "embedding_mask/row" } else { "embedding_mask/none" };
        let parts = weights
            .parts()
            .iter()
            .map(|part| {
                let params = EmbeddingParams {
                    pieces,
                    rows_out: part.outputs as u32,
                    first_out: part.first as u32,
                    vocab: weights.rows() as u32,
                    mask: mask.map_or(0, |mask| mask.id),
                };
                let params = Buffer::uniform(device, "embedding params", &params)?;
                let shared = ["embedding", "shared/eight", "shared/weight", mask_file];
                let files = [&shared[..], part.format.shaders()].concat();
                let kernel = device.kernel(&files, &[("LANES", weights.lanes())])?;
                let operands = [&params, ids, &part.buffer, &y.buffer];
                let operands: Vec<&Buffer> = operands.into_iter().chain(mask.map(|mask| &mask.row.buffer)).collect();
                kernel.dispatch(device, &operands, [1, 1, 1])
            })
            .collect::<Result<_>>()?;
        let row_bytes = weights.formats()[0].row_bytes(weights.columns());
        Ok(Embedding { parts, workgroups: pieces.div_ceil(64), width: y.width, row_bytes })
    }

    /// Records the look-up for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        // Each of several parts writes some of the rows.
        let bytes = rows * (self.row_bytes + 4 * self.width) / self.parts.len();
        let work = Work::of(rows, [1, self.width], bytes, 0).stored();
        for part in &self.parts {
            part.encode_over(pass, [self.workgroups, rows as u32, 1], work);
        }
    }
}
