//! Weights of a layer's experts on the device: their matrices one below the other, laid out as [`super::Matrix`] lays out
//! one, each padded so that it begins at a whole group of rows.

use std::ops::Range;

use super::matrix::{Part, shape_fault};
use super::weight_layout::{Layout, Source};
use crate::error::{Error, Result};
use crate::formats::{PIECE, WeightFormat};
use crate::gpu::{Buffer, Device, KernelPlan};

/// Sizes of the matrices of a layer's experts, all alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertSizes {
    /// Experts.
    pub count: usize,
    /// Outputs of one.
    pub outputs: usize,
    /// Inputs of all.
    pub columns: usize,
    /// Weight rows of an output: 1, or 2 for gate and up.
    pub pair: usize,
}

/// The matrices of a layer's experts. Where they are larger than one binding, some experts each are a part.
pub struct ExpertMatrix {
    /// Their `first` and `outputs` count weight rows, padding included.
    pub(super) parts: Vec<Part>,
    pub(super) sizes: ExpertSizes,
    pub(super) format: WeightFormat,
    pub(super) lanes: u32,
}

impl ExpertSizes {
    /// Weight rows of an expert.
    pub fn rows(&self) -> usize {
        self.outputs * self.pair
    }

    /// The same, padded as they lie on the device.
    pub(super) fn padded_rows(&self, layout: Layout) -> usize {
        (self.outputs.next_multiple_of(layout.lanes) * self.pair).next_multiple_of(layout.group())
    }
}

impl ExpertMatrix {
    /// Uploads the matrices of experts, whose rows `source` gives expert by expert: the gates and then the ups, where
    /// there are pairs.
    ///
    /// # Errors
    ///
    /// Those of the source; [`Error::Shape`] if a size is 0, or the columns are no multiple of 8 and of what the format takes
    /// together; [`Error::Limit`] if the device binds no buffer of one expert; [`Error::OutOfMemory`].
    pub fn upload(
        device: &Device,
        plan: &KernelPlan,
        label: &str,
        format: WeightFormat,
        sizes: ExpertSizes,
        source: Source,
    ) -> Result<ExpertMatrix> {
        let matrix = ExpertMatrix::zeros(device, plan, label, format, sizes)?;
        let layout = matrix.layout();
        for part in &matrix.parts {
            let fill = |source: Source| part.fill(device, layout, part.outputs, part.first, source);
            match source {
                Source::Values(read) => fill(Source::Values(&padded_rows(layout, sizes, sizes.columns, read)))?,
                Source::Stored(read) => {
                    let width = format.stored_bytes(sizes.columns);
                    fill(Source::Stored(&padded_rows(layout, sizes, width, read)))?;
                }
            }
        }
        Ok(matrix)
    }

    /// Matrices of zeros, as [`super::Matrix::zeros`] makes one.
    ///
    /// # Errors
    ///
    /// As [`ExpertMatrix::upload`].
    pub fn zeros(
        device: &Device,
        plan: &KernelPlan,
        label: &str,
        format: WeightFormat,
        sizes: ExpertSizes,
    ) -> Result<ExpertMatrix> {
        let ExpertSizes { count, columns, .. } = sizes;
        let together = format.block_len().max(PIECE);
        if count == 0 || sizes.rows() == 0 || columns == 0 || !columns.is_multiple_of(together) {
            return Err(shape_fault(count * sizes.rows(), columns, together));
        }
        let layout = Layout { lanes: plan.lanes as usize, columns, format };
        let padded = sizes.padded_rows(layout);
        let expert_bytes = (padded * layout.row_bytes()) as u64;
        let most = (device.largest_binding() / expert_bytes) as usize;
        if most == 0 {
            return Err(Error::Limit {
                adapter: device.name(),
                what: format!("one expert of {label}"),
                needed: expert_bytes,
                limit: device.largest_binding(),
                unit: "bytes in one binding",
                hint: "use a smaller model",
            });
        }
        let part = |first: usize| {
            let count = most.min(count - first);
            let buffer = Buffer::storage(device, label, count as u64 * expert_bytes)?;
            Ok(Part { buffer, scales: None, format, first: first * padded, outputs: count * padded })
        };
        let parts = (0..count).step_by(most).map(part).collect::<Result<_>>()?;
        Ok(ExpertMatrix { parts, sizes, format, lanes: plan.lanes })
    }

    /// Device memory that such matrices will take.
    pub fn expected_bytes(plan: &KernelPlan, format: WeightFormat, sizes: ExpertSizes) -> u64 {
        let layout = Layout { lanes: plan.lanes as usize, columns: sizes.columns, format };
        (sizes.count * sizes.padded_rows(layout) * layout.row_bytes()) as u64
    }

    /// Blocks of `lanes` weight rows that an expert takes.
    pub(super) fn blocks(&self) -> u32 {
        self.sizes.padded_rows(self.layout()) as u32 / self.lanes
    }

    fn layout(&self) -> Layout {
        Layout { lanes: self.lanes as usize, columns: self.sizes.columns, format: self.format }
    }

    /// The sizes.
    pub fn sizes(&self) -> ExpertSizes {
        self.sizes
    }

    /// The format of the weights.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// The weights of each part, as they lie on the device.
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        self.parts.iter().map(|part| &part.buffer)
    }

    /// Device memory it takes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.buffer.bytes()).sum()
    }
}

/// Rows as they lie on the device, padding and all, `width` elements each: within an expert, blocks of gates and of ups take
/// turns. `read` has them without padding. Ranges lie within a block of rows.
fn padded_rows<T: Copy + Default>(
    layout: Layout,
    sizes: ExpertSizes,
    width: usize,
    read: impl Fn(Range<usize>, &mut [T]) -> Result<()> + Sync,
) -> impl Fn(Range<usize>, &mut [T]) -> Result<()> + Sync {
    let ExpertSizes { outputs, pair, .. } = sizes;
    let padded = sizes.padded_rows(layout);
    move |range: Range<usize>, out: &mut [T]| {
        let (expert, block) = (range.start / padded, range.start % padded / layout.lanes);
        let first = block / pair * layout.lanes;
        let rows = range.len().min(outputs.saturating_sub(first));
        let (values, padding) = out.split_at_mut(rows * width);
        padding.fill(T::default());
        let start = expert * sizes.rows() + block % pair * outputs + first;
        if rows == 0 { Ok(()) } else { read(start..start + rows, values) }
    }
}
