//! Layout of a matrix's rows on the device, for the host: blocks of `lanes` rows, in which the 8-value pieces of the same
//! columns, or the words of quantised ones, are neighbours.

use std::ops::Range;

use crate::error::Result;
use crate::formats::{PIECE, WeightFormat};

/// Bytes moved between two submits: wgpu stages a copy of everything written until the next one.
const PORTION_BYTES: usize = 64 << 20;

/// Source of a matrix's rows during its upload: writes the rows of a range, widened to f32.
pub type MatrixSource<'a> = dyn Fn(Range<usize>, &mut [f32]) -> Result<()> + Sync + 'a;
/// The same for rows that are taken as they are: writes their bytes as files store the format.
pub type StoredSource<'a> = dyn Fn(Range<usize>, &mut [u8]) -> Result<()> + Sync + 'a;

/// Contents of a matrix to upload.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Numbers, which the matrix's format rounds.
    Values(&'a MatrixSource<'a>),
    /// Rows in the matrix's format already.
    Stored(&'a StoredSource<'a>),
}

/// Weight rows per lane in the widest variant; matrices are padded to whole groups of `lanes` times this. Few lanes, a
/// CPU's, want more: all of them share a value of x, and what a CPU pays for reading it.
pub(super) const fn max_blocks(lanes: usize) -> usize {
    if lanes <= 8 { 8 } else { 4 }
}

/// Layout of rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub lanes: usize,
    pub columns: usize,
    pub format: WeightFormat,
}

impl Layout {
    /// Rows that a matrix is padded to.
    pub fn group(self) -> usize {
        self.lanes * max_blocks(self.lanes)
    }

    /// Bytes of a row.
    pub fn row_bytes(self) -> usize {
        self.format.row_bytes(self.columns)
    }

    /// Bytes of a group.
    pub fn group_bytes(self) -> usize {
        self.group() * self.row_bytes()
    }

    /// `rows` rows in whole groups (but for the end) that are moved at once.
    pub fn portions(self, rows: usize) -> impl Iterator<Item = Range<usize>> {
        let most = (PORTION_BYTES / self.group_bytes()).max(1) * self.group();
        (0..rows).step_by(most).map(move |first| first..rows.min(first + most))
    }

    /// Byte range of unit `unit` of the row of `lane` in its block.
    fn unit(self, lane: usize, unit: usize) -> Range<usize> {
        let bytes = self.format.unit_bytes();
        let start = (unit * self.lanes + lane) * bytes;
        start..start + bytes
    }

    /// Reads rows `range` and interleaves them, with their scales if they are `scaled`; the rows missing from the last
    /// group are zeros.
    pub fn interleave(self, range: Range<usize>, source: Source, scaled: bool) -> Result<(Vec<u8>, Vec<f32>)> {
        let padded_rows = range.len().next_multiple_of(self.group());
        let mut out = vec![0u8; padded_rows * self.row_bytes()];
        let mut scales = vec![0.0f32; padded_rows];
        let block_bytes = self.lanes * self.row_bytes();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let blocks_each = (out.len() / block_bytes).div_ceil(threads);
        std::thread::scope(|scope| {
            let workers: Vec<_> = out
                .chunks_mut(blocks_each * block_bytes)
                .zip(scales.chunks_mut(blocks_each * self.lanes))
                .enumerate()
                .map(|(worker, (share, scales))| {
                    let first = range.start + worker * blocks_each * self.lanes;
                    let scales = scales.chunks_mut(self.lanes).map(|scales| scaled.then_some(scales));
                    let end = range.end;
                    scope.spawn(move || {
                        let mut buffers = Buffers::new(self);
                        let blocks = share.chunks_mut(block_bytes).zip(scales);
                        for (at, (block, scales)) in blocks.enumerate() {
                            let first = first + at * self.lanes;
                            let rows = first..end.min(first + self.lanes);
                            if rows.is_empty() {
                                break;
                            }
                            self.interleave_block(rows, source, &mut buffers, block, scales)?;
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

    /// Reads at most `lanes` rows, and interleaves them.
    fn interleave_block(
        self,
        rows: Range<usize>,
        source: Source,
        buffers: &mut Buffers,
        block: &mut [u8],
        mut scales: Option<&mut [f32]>,
    ) -> Result<()> {
        let Layout { columns, format, .. } = self;
        let stored_bytes = format.stored_bytes(columns);
        let stored = &mut buffers.stored[..rows.len() * stored_bytes];
        match source {
            Source::Stored(read) => read(rows, stored)?,
            Source::Values(read) => {
                let values = &mut buffers.values[..rows.len() * columns];
                read(rows, values)?;
                for (values, stored) in values.chunks(columns).zip(stored.chunks_mut(stored_bytes)) {
                    format.store(values, stored);
                }
            }
        }
        let packed = &mut buffers.packed;
        for (lane, stored) in stored.chunks(stored_bytes).enumerate() {
            format.pack(stored, packed);
            for (unit, bytes) in packed.chunks(format.unit_bytes()).enumerate() {
                block[self.unit(lane, unit)].copy_from_slice(bytes);
            }
            if let Some(scales) = &mut scales {
                scales[lane] = scale(format.largest(stored, columns));
            }
        }
        Ok(())
    }

    /// Undoes [`Layout::interleave`] of floats, as far as `rows` asks for.
    pub fn separate(self, interleaved: &[u8], rows: &mut [f32]) {
        let blocks = interleaved.chunks(self.lanes * self.row_bytes());
        for (block, rows) in blocks.zip(rows.chunks_mut(self.lanes * self.columns)) {
            for (lane, row) in rows.chunks_mut(self.columns).enumerate() {
                for (unit, values) in row.chunks_mut(PIECE).enumerate() {
                    self.format.widen(&block[self.unit(lane, unit)], values);
                }
            }
        }
    }
}

/// Scratch memory of a worker that reads a block's rows.
struct Buffers {
    values: Vec<f32>,
    stored: Vec<u8>,
    /// One row, as it lies on the device.
    packed: Vec<u8>,
}

impl Buffers {
    fn new(layout: Layout) -> Buffers {
        let Layout { lanes, columns, format } = layout;
        Buffers {
            values: vec![0.0; lanes * columns],
            stored: vec![0; lanes * format.stored_bytes(columns)],
            packed: vec![0; layout.row_bytes()],
        }
    }
}

/// The power of two that brings the row's largest value to 2^14, the upper end of what f16 holds, as
/// shaders/kernels/matmul_cooperative.wgsl does with rows of x.
fn scale(largest: f32) -> f32 {
    f32::from_bits((127 + 14 + 127 - (largest.to_bits() >> 23)).min(253) << 23)
}
