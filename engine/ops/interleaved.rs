//! How a matrix's rows lie on the device, for the host: blocks of `lanes` rows, in which the 8-value pieces of the same
//! columns are neighbours.

use std::ops::Range;

use super::matrix::{MOST_BLOCKS, MatrixSource, PIECE, WeightFormat};
use crate::error::Result;

/// Bytes moved between two submits: wgpu stages a copy of everything written until the next one.
const PORTION_BYTES: usize = 64 << 20;

/// How rows lie.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub lanes: usize,
    pub columns: usize,
    pub format: WeightFormat,
}

impl Layout {
    /// Rows that a matrix is padded to.
    pub fn group(self) -> usize {
        self.lanes * MOST_BLOCKS
    }

    /// What they take.
    pub fn group_bytes(self) -> usize {
        self.group() * self.columns * self.format.bytes()
    }

    /// `rows` rows in whole groups (but for the end) that are moved at once.
    pub fn portions(self, rows: usize) -> impl Iterator<Item = Range<usize>> {
        let most = (PORTION_BYTES / self.group_bytes()).max(1) * self.group();
        (0..rows).step_by(most).map(move |first| first..rows.min(first + most))
    }

    /// The bytes of a piece of a row, in its block.
    fn piece(self, lane: usize, piece: usize) -> Range<usize> {
        let bytes = PIECE * self.format.bytes();
        let start = (piece * self.lanes + lane) * bytes;
        start..start + bytes
    }

    /// Reads rows `range` and interleaves them, with their scales; the rows missing from the last group are zeros.
    pub fn interleave(self, range: Range<usize>, source: &MatrixSource) -> Result<(Vec<u8>, Vec<f32>)> {
        let Layout { lanes, columns, format } = self;
        let padded_rows = range.len().next_multiple_of(self.group());
        let mut out = vec![0u8; padded_rows * columns * format.bytes()];
        let mut scales = vec![0.0f32; padded_rows];
        let block_bytes = lanes * columns * format.bytes();
        let piece_bytes = PIECE * format.bytes();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let blocks_each = (out.len() / block_bytes).div_ceil(threads);
        std::thread::scope(|scope| {
            let workers: Vec<_> = out
                .chunks_mut(blocks_each * block_bytes)
                .zip(scales.chunks_mut(blocks_each * lanes))
                .enumerate()
                .map(|(worker, (share, scales))| {
                    let range = range.clone();
                    scope.spawn(move || -> Result<()> {
                        let mut values = vec![0.0f32; lanes * columns];
                        let mut encoded = vec![0u8; columns * format.bytes()];
                        for (at, block) in share.chunks_mut(block_bytes).enumerate() {
                            let first = range.start + (worker * blocks_each + at) * lanes;
                            let rows = lanes.min(range.end.saturating_sub(first));
                            if rows == 0 {
                                break;
                            }
                            source(first..first + rows, &mut values[..rows * columns])?;
                            for (lane, row) in values[..rows * columns].chunks(columns).enumerate() {
                                format.encode(row, &mut encoded);
                                scales[at * lanes + lane] = scale(row);
                                for (piece, bytes) in encoded.chunks(piece_bytes).enumerate() {
                                    block[self.piece(lane, piece)].copy_from_slice(bytes);
                                }
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        Ok((out, scales))
    }

    /// Undoes [`Layout::interleave`], as far as `rows` asks for.
    pub fn separate(self, interleaved: &[u8], rows: &mut [f32]) {
        let blocks = interleaved.chunks(self.lanes * self.columns * self.format.bytes());
        for (block, rows) in blocks.zip(rows.chunks_mut(self.lanes * self.columns)) {
            for (lane, row) in rows.chunks_mut(self.columns).enumerate() {
                for (piece, values) in row.chunks_mut(PIECE).enumerate() {
                    self.format.decode(&block[self.piece(lane, piece)], values);
                }
            }
        }
    }
}

/// The power of two that brings the row's largest value to 2^14, the upper end of what f16 holds, as
/// shaders/matmul_cooperative.wgsl does with rows of x. Rounding to the weights' format cannot make f16 overflow there.
fn scale(row: &[f32]) -> f32 {
    // As integers, magnitudes keep their order.
    let largest = row.iter().map(|value| value.abs().to_bits()).max().unwrap_or_default();
    f32::from_bits((127 + 14 + 127 - (largest >> 23)).min(253) << 23)
}
