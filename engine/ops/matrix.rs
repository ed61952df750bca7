//! Weight matrices on the device.
//!
//! They lie interleaved: the 8-value piece `p` of `lanes` neighbouring rows is contiguous, so lanes that each own a row
//! read side by side and nothing is ever summed across lanes. Plain rows with a reduction across lanes were the
//! alternative; those read x once per lane instead of once per subgroup, which is where many rows spend their time.
//! A matrix larger than one binding is split by rows into parts.

use super::variant::{Variant, Variants};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Pass, Plan, Products};

/// How weights are kept on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// 16-bit brain float.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

impl WeightFormat {
    pub(super) fn file(self) -> &'static str {
        match self {
            WeightFormat::Bf16 => "weights/bf16",
            WeightFormat::F16 => "weights/f16",
            WeightFormat::F32 => "weights/f32",
        }
    }

    /// Bytes of one weight.
    pub fn bytes(self) -> usize {
        match self {
            WeightFormat::Bf16 | WeightFormat::F16 => 2,
            WeightFormat::F32 => 4,
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            WeightFormat::Bf16 => "bf16",
            WeightFormat::F16 => "f16",
            WeightFormat::F32 => "f32",
        }
    }

    /// Writes `values` in this format to `out`, rounding to nearest where it is narrower.
    fn encode(self, values: &[f32], out: &mut [u8]) {
        let sixteen = |out: &mut [u8], convert: fn(f32) -> u16| {
            for (value, bytes) in values.iter().zip(out.as_chunks_mut::<2>().0) {
                *bytes = convert(*value).to_le_bytes();
            }
        };
        match self {
            WeightFormat::Bf16 => sixteen(out, |value| half::bf16::from_f32(value).to_bits()),
            WeightFormat::F16 => sixteen(out, |value| half::f16::from_f32(value).to_bits()),
            WeightFormat::F32 => {
                for (value, bytes) in values.iter().zip(out.as_chunks_mut::<4>().0) {
                    *bytes = value.to_le_bytes();
                }
            }
        }
    }
}

/// Where a matrix's rows come from while it is uploaded: writes the rows of a range, widened to f32.
pub type MatrixSource<'a> = dyn Fn(std::ops::Range<usize>, &mut [f32]) -> Result<()> + Sync + 'a;

/// A weight matrix on the device.
pub struct Matrix {
    parts: Vec<Part>,
    outputs: usize,
    columns: usize,
    /// Weight rows of an output: 1, or 2 for gate and up.
    pair: usize,
    format: WeightFormat,
    lanes: u32,
    variants: Variants,
}

/// Some of a matrix's outputs.
pub(super) struct Part {
    pub buffer: Buffer,
    /// For cooperative products: the power of two by which each weight row is multiplied.
    pub scales: Option<Buffer>,
    pub first: usize,
    pub outputs: usize,
}

/// Weight rows per lane in the widest variant; matrices are padded to whole groups of `lanes` times this.
pub(super) const MOST_BLOCKS: usize = 4;
/// Weights per piece.
pub(super) const PIECE: usize = 8;
/// Bytes uploaded between two submits: wgpu stages a copy of everything written until the next one.
const UPLOAD_BYTES: usize = 64 << 20;

impl Matrix {
    /// Uploads a matrix whose rows `source` gives, on all cores, in pieces that bound the memory in flight.
    ///
    /// **Errors**: those of `source`; [`Error::Shape`] if `columns` is no multiple of 8; [`Error::OutOfMemory`].
    pub fn upload(
        device: &Device,
        plan: &Plan,
        label: &str,
        format: WeightFormat,
        shape: [usize; 2],
        source: &MatrixSource,
    ) -> Result<Matrix> {
        Matrix::upload_rows(device, plan, label, format, shape, 1, source)
    }

    /// Uploads two matrices of the shape `[outputs, columns]`, gate and up, whose rows `source` gives one below the other.
    /// They lie such that a lane which owns a gate's row owns the row of its up, [`super::Finish::Swiglu`]'s operands.
    ///
    /// **Errors**: as [`Matrix::upload`].
    pub fn upload_pair(
        device: &Device,
        plan: &Plan,
        label: &str,
        format: WeightFormat,
        [outputs, columns]: [usize; 2],
        source: &MatrixSource,
    ) -> Result<Matrix> {
        let lanes = plan.lanes as usize;
        // Blocks of `lanes` rows come from gate and up in turns. Ranges are whole blocks, read one at a time.
        let in_turns = |range: std::ops::Range<usize>, out: &mut [f32]| {
            let block = range.start / lanes;
            let first = block / 2 * lanes;
            let rows = lanes.min(outputs - first);
            let (values, padding) = out.split_at_mut(rows * columns);
            padding.fill(0.0);
            let start = block % 2 * outputs + first;
            source(start..start + rows, values)
        };
        let rows = 2 * outputs.next_multiple_of(lanes);
        let mut matrix = Matrix::upload_rows(device, plan, label, format, [rows, columns], 2, &in_turns)?;
        matrix.outputs = outputs;
        if let Some(last) = matrix.parts.last_mut() {
            last.outputs = outputs - last.first;
        }
        Ok(matrix)
    }

    fn upload_rows(
        device: &Device,
        plan: &Plan,
        label: &str,
        format: WeightFormat,
        [rows, columns]: [usize; 2],
        pair: usize,
        source: &MatrixSource,
    ) -> Result<Matrix> {
        if columns == 0 || rows == 0 || !columns.is_multiple_of(PIECE) {
            let expected = vec![rows.max(1), columns.next_multiple_of(PIECE).max(PIECE)];
            return Err(Error::Shape { op: "matmul", tensor: "weights", got: vec![rows, columns], expected });
        }
        let group = plan.lanes as usize * MOST_BLOCKS;
        let group_bytes = group * columns * format.bytes();
        let most_groups = (device.largest_binding() / group_bytes as u64) as usize;
        if most_groups == 0 {
            return Err(Error::Limit {
                adapter: device.name(),
                what: format!("{group} rows of {label}"),
                needed: group_bytes as u64,
                limit: device.largest_binding(),
                unit: "bytes in one binding",
                hint: "use a smaller model",
            });
        }
        let mut parts = Vec::new();
        for first in (0..rows).step_by(most_groups * group) {
            let part_rows = (rows - first).min(most_groups * group);
            let groups = part_rows.div_ceil(group);
            let buffer = Buffer::storage(device, label, (groups * group_bytes) as u64)?;
            let scales = match plan.products {
                Products::Plain => None,
                Products::Cooperative { .. } => {
                    Some(Buffer::storage(device, "row scales", (groups * group * size_of::<f32>()) as u64)?)
                }
            };
            let upload_groups = (UPLOAD_BYTES / group_bytes).max(1);
            for at in (0..groups).step_by(upload_groups) {
                let count = upload_groups.min(groups - at);
                let (interleaved, row_scales) = interleave(
                    plan.lanes as usize,
                    format,
                    first + at * group..(first + part_rows).min(first + (at + count) * group),
                    columns,
                    source,
                )?;
                buffer.write(device, (at * group_bytes) as u64, &interleaved);
                if let Some(scales) = &scales {
                    scales.write(device, (at * group * size_of::<f32>()) as u64, &row_scales);
                }
                Pass::submit(device, None, |_| Ok(()))?;
                device.wait()?;
            }
            parts.push(Part { buffer, scales, first: first / pair, outputs: part_rows / pair });
        }
        let variants = Variant::defaults(device, pair as u32);
        Ok(Matrix { parts, outputs: rows / pair, columns, pair, format, lanes: plan.lanes, variants })
    }

    /// Output width.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Weight rows: twice the outputs, if each is made of a gate and an up.
    pub fn rows(&self) -> usize {
        self.outputs * self.pair
    }

    /// Weight rows of an output.
    pub(super) fn pair(&self) -> u32 {
        self.pair as u32
    }

    /// How few rows are multiplied, by their number.
    pub fn variants(&self) -> &Variants {
        &self.variants
    }

    /// Sets how few rows are multiplied. It changes times and no bit of a result.
    pub fn set_variants(&mut self, variants: Variants) {
        self.variants = variants;
    }

    /// Input width.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How the weights are kept.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Device memory it takes.
    pub fn bytes(&self) -> u64 {
        let buffers = self.parts.iter().flat_map(|part| [Some(&part.buffer), part.scales.as_ref()]);
        buffers.flatten().map(Buffer::bytes).sum()
    }

    /// Rows that lie interleaved.
    pub(super) fn lanes(&self) -> u32 {
        self.lanes
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

/// Reads rows `range` and lays them out for `lanes` lanes, with their scales; the rows missing from the last group are
/// zeros.
fn interleave(
    lanes: usize,
    format: WeightFormat,
    range: std::ops::Range<usize>,
    columns: usize,
    source: &MatrixSource,
) -> Result<(Vec<u8>, Vec<f32>)> {
    let group = lanes * MOST_BLOCKS;
    let padded_rows = range.len().next_multiple_of(group);
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
                                let start = (piece * lanes + lane) * piece_bytes;
                                block[start..start + piece_bytes].copy_from_slice(bytes);
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

/// The power of two that brings the row's largest value to 2^14, the upper end of what f16 holds, as
/// shaders/matmul_cooperative.wgsl does with rows of x. Rounding to the weights' format cannot make f16 overflow there.
fn scale(row: &[f32]) -> f32 {
    // As integers, magnitudes keep their order.
    let largest = row.iter().map(|value| value.abs().to_bits()).max().unwrap_or_default();
    f32::from_bits((127 + 14 + 127 - (largest >> 23)).min(253) << 23)
}
