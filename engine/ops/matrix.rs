//! Weight matrices on the device.
//!
//! They lie interleaved: the 8-value piece `p` of `lanes` neighbouring rows is contiguous (or word `p`, where they are
//! quantised), so lanes that each own a row read side by side and nothing is ever summed across lanes. Plain rows with
//! a reduction across lanes were the alternative; those read x once per lane instead of once per subgroup, which is
//! where many rows spend their time. A matrix larger than one binding is split by rows into parts, and so is one whose
//! rows come in several formats.

use std::ops::Range;

use super::expect_len;
use super::variant::{Variant, Variants};
use super::weight_layout::{Layout, MatrixSource, Source};
use crate::error::{Error, OptionName, Result};
use crate::formats::{PIECE, WeightFormat};
use crate::gpu::{Buffer, Device, KernelPlan, MatmulPath, Pass};

/// Some rows of a matrix.
#[derive(Clone, Copy)]
pub struct Section<'a> {
    /// Format of the rows.
    pub format: WeightFormat,
    /// Number of rows.
    pub rows: usize,
    /// Source of the rows, counted from the section's first.
    pub source: Source<'a>,
}

/// A weight matrix on the device.
pub struct Matrix {
    parts: Vec<Part>,
    outputs: usize,
    columns: usize,
    /// Weight rows of an output: 1, or 2 for gate and up.
    pair: usize,
    lanes: u32,
    /// Those of the plan, before a small matrix is cut into more.
    slices: u32,
    variants: Variants,
}

/// Some of a matrix's outputs.
pub(super) struct Part {
    pub buffer: Buffer,
    /// For cooperative products: the power of two by which each weight row is multiplied.
    pub scales: Option<Buffer>,
    pub format: WeightFormat,
    pub first: usize,
    pub outputs: usize,
}

impl Matrix {
    /// Uploads a matrix whose rows `source` gives, on all cores, in pieces that bound the memory in flight.
    ///
    /// # Errors
    ///
    /// As [`Matrix::of_sections`].
    pub fn upload(
        device: &Device,
        plan: &KernelPlan,
        label: &str,
        format: WeightFormat,
        [rows, columns]: [usize; 2],
        source: &MatrixSource,
    ) -> Result<Matrix> {
        Matrix::of_sections(device, plan, label, columns, &[Section { format, rows, source: Source::Values(source) }])
    }

    /// Uploads a matrix of the rows of `sections`, one below the other, each in its own format.
    ///
    /// # Errors
    ///
    /// Those of the sources; [`Error::Shape`] if there are no rows, or `columns` is no multiple of 8 and of
    /// what a format takes together; [`Error::OutOfMemory`]; [`Error::Limit`].
    pub fn of_sections(
        device: &Device,
        plan: &KernelPlan,
        label: &str,
        columns: usize,
        sections: &[Section],
    ) -> Result<Matrix> {
        let mut parts = Vec::new();
        let mut first = 0;
        for section in sections {
            parts.extend(section.upload(device, plan, label, columns, first)?);
            first += section.rows;
        }
        if parts.is_empty() {
            return Err(shape_fault(0, columns, PIECE));
        }
        Ok(Matrix::of_parts(device, [plan.lanes, plan.slices], columns, parts, 1))
    }

    /// Uploads two matrices of the shape `[outputs, columns]`, gate and up, whose rows `source` gives one below the other.
    /// They lie such that a lane which owns a gate's row owns the row of its up, [`super::Epilogue::Swiglu`]'s operands.
    ///
    /// # Errors
    ///
    /// As [`Matrix::of_sections`].
    pub fn of_pair(
        device: &Device,
        plan: &KernelPlan,
        label: &str,
        format: WeightFormat,
        [outputs, columns]: [usize; 2],
        source: Source,
    ) -> Result<Matrix> {
        let lanes = plan.lanes as usize;
        let rows = Matrix::pair_rows(plan, outputs);
        let upload = |source| Section { format, rows, source }.upload(device, plan, label, columns, 0);
        let mut parts = match source {
            Source::Values(read) => upload(Source::Values(&interleave_rows(lanes, outputs, columns, read)))?,
            Source::Stored(read) => {
                let width = format.stored_bytes(columns);
                upload(Source::Stored(&interleave_rows(lanes, outputs, width, read)))?
            }
        };
        for part in &mut parts {
            part.first /= 2;
            part.outputs = (part.outputs / 2).min(outputs - part.first);
        }
        Ok(Matrix::of_parts(device, [plan.lanes, plan.slices], columns, parts, 2))
    }

    /// A matrix of zeros of the shape `[outputs, columns]`, with `pair` weight rows an output, 1 or 2. Nothing is
    /// uploaded: it is for whoever wants to know a product's kernels and not its result.
    ///
    /// # Errors
    ///
    /// As [`Matrix::of_sections`].
    pub fn zeros(
        device: &Device,
        plan: &KernelPlan,
        label: &str,
        format: WeightFormat,
        [outputs, columns]: [usize; 2],
        pair: usize,
    ) -> Result<Matrix> {
        let layout = Layout { lanes: plan.lanes as usize, columns, format };
        let rows = if pair == 1 { outputs } else { Matrix::pair_rows(plan, outputs) };
        let mut parts = Part::empty(device, label, layout, rows, plan.products != MatmulPath::Plain)?;
        for part in &mut parts {
            part.first /= pair;
            part.outputs = (part.outputs / pair).min(outputs - part.first);
        }
        Ok(Matrix::of_parts(device, [plan.lanes, plan.slices], columns, parts, pair))
    }

    /// Device memory that weights of the shape `[rows, columns]` in one format will take: whole groups of rows, and scales
    /// where products are cooperative.
    pub fn expected_bytes(plan: &KernelPlan, format: WeightFormat, [rows, columns]: [usize; 2]) -> u64 {
        let layout = Layout { lanes: plan.lanes as usize, columns, format };
        let padded = rows.next_multiple_of(layout.group());
        let scales = if plan.products == MatmulPath::Plain { 0 } else { padded * size_of::<f32>() };
        (padded / layout.group() * layout.group_bytes() + scales) as u64
    }

    /// Weight rows of a pair of `outputs` outputs, padded so that gate and up can lie in turns.
    pub fn pair_rows(plan: &KernelPlan, outputs: usize) -> usize {
        2 * outputs.next_multiple_of(plan.lanes as usize)
    }

    /// A matrix whose parts are made, for a plan of `lanes` and `slices`.
    pub(super) fn of_parts(
        device: &Device,
        [lanes, slices]: [u32; 2],
        columns: usize,
        parts: Vec<Part>,
        pair: usize,
    ) -> Matrix {
        let outputs = parts.iter().map(|part| part.outputs).sum::<usize>();
        let variants = Variant::defaults(device, [lanes, slices], outputs * pair, pair as u32);
        Matrix { parts, outputs, columns, pair, lanes, slices, variants }
    }

    /// The same matrix on another device, bit for bit; `from` is where this one is.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if that device binds no part as large as this one's, [`Error::OutOfMemory`]; as
    /// [`Device::check`](crate::gpu::GpuContext::check).
    pub fn copied_to(&self, from: &Device, to: &Device) -> Result<Matrix> {
        let copy = |part: &Part| {
            let scales = part.scales.as_ref().map(|scales| scales.copied_to(from, to)).transpose()?;
            let Part { format, first, outputs, .. } = *part;
            Ok(Part { buffer: part.buffer.copied_to(from, to)?, scales, format, first, outputs })
        };
        let parts = self.parts.iter().map(copy).collect::<Result<_>>()?;
        Ok(Matrix::of_parts(to, [self.lanes, self.slices], self.columns, parts, self.pair))
    }

    /// Puts `values`, `[outputs, columns]`, in the place of the weights, rounded to their format.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if there are more or fewer values, or the matrix is a pair; as
    /// [`Device::check`](crate::gpu::GpuContext::check).
    pub fn write_rows(&self, device: &Device, values: &[f32]) -> Result<()> {
        self.expect_single("write_rows")?;
        expect_len("write_rows", "values", values, self.outputs * self.columns)?;
        self.parts.iter().try_for_each(|part| {
            let read = |rows: Range<usize>, out: &mut [f32]| {
                let [start, end] = [rows.start, rows.end].map(|row| (part.first + row) * self.columns);
                out.copy_from_slice(&values[start..end]);
                Ok(())
            };
            part.fill(device, self.layout(part), part.outputs, 0, Source::Values(&read))
        })
    }

    /// Reads the weights back, `[outputs, columns]`, widened to f32.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the matrix is a pair; [`Error::Option`] if it is quantised; as
    /// [`Device::check`](crate::gpu::GpuContext::check).
    pub fn read_rows(&self, device: &Device) -> Result<Vec<f32>> {
        self.expect_single("read_rows")?;
        let mut values = vec![0.0; self.outputs * self.columns];
        for part in &self.parts {
            if part.format.is_quantised() {
                let reason = format!("{} weights are not read back from the device", part.format.name());
                return Err(Error::Option { option: OptionName::Dtype, reason });
            }
            let layout = self.layout(part);
            for rows in layout.portions(part.outputs) {
                let offset = rows.start / layout.group() * layout.group_bytes();
                let bytes = rows.len().div_ceil(layout.group()) * layout.group_bytes();
                let words: Vec<u32> = part.buffer.read(device, offset as u64, bytes / size_of::<u32>())?;
                let [start, end] = [rows.start, rows.end].map(|row| (part.first + row) * self.columns);
                layout.separate(bytemuck::cast_slice(&words), &mut values[start..end]);
            }
        }
        Ok(values)
    }

    /// Zeros for the gradients of all weights: for each part a buffer that lies as the part's does, in f32.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn gradients(&self, device: &Device) -> Result<Vec<Buffer>> {
        self.part_lens().map(|len| Buffer::storage(device, "gradients", (len * size_of::<f32>()) as u64)).collect()
    }

    /// The weights of each part, in the part's format and as they lie on the device. Of an f32 matrix they may be
    /// changed in place, element by element.
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        self.parts.iter().map(|part| &part.buffer)
    }

    /// Weights of each part, with those that only pad it.
    pub(super) fn part_lens(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|part| {
            let group = self.layout(part).group();
            (part.outputs * self.pair).next_multiple_of(group) * self.columns
        })
    }

    /// Checks that an output has one weight row.
    pub(super) fn expect_single(&self, op: &'static str) -> Result<()> {
        if self.pair == 1 {
            return Ok(());
        }
        let [got, expected] = [self.rows(), self.outputs].map(|rows| vec![rows, self.columns]);
        Err(Error::Shape { op, tensor: "weights", got, expected })
    }

    /// Returns the layout of the rows of `part`.
    pub(super) fn layout(&self, part: &Part) -> Layout {
        Layout { lanes: self.lanes as usize, columns: self.columns, format: part.format }
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

    /// Returns the variants for few rows, by their number.
    pub fn variants(&self) -> &Variants {
        &self.variants
    }

    /// Sets the variants for few rows. They change times and no bit of a result.
    pub fn set_variants(&mut self, variants: Variants) {
        self.variants = variants;
    }

    /// Input width.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Returns the formats of the weights, from the first row to the last; more than one if they came in several.
    pub fn formats(&self) -> Vec<WeightFormat> {
        let mut formats: Vec<WeightFormat> = self.parts.iter().map(|part| part.format).collect();
        formats.dedup();
        formats
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

    /// The plan's parts of a dot product.
    pub(super) fn slices(&self) -> u32 {
        self.slices
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl Section<'_> {
    /// Uploads its rows, which follow `before` others; each is an output.
    fn upload(
        &self,
        device: &Device,
        plan: &KernelPlan,
        label: &str,
        columns: usize,
        before: usize,
    ) -> Result<Vec<Part>> {
        let Section { format, rows, source } = *self;
        let together = format.block_len().max(PIECE);
        if columns == 0 || rows == 0 || !columns.is_multiple_of(together) {
            return Err(shape_fault(rows, columns, together));
        }
        let layout = Layout { lanes: plan.lanes as usize, columns, format };
        let mut parts = Part::empty(device, label, layout, rows, plan.products != MatmulPath::Plain)?;
        for part in &mut parts {
            part.fill(device, layout, part.outputs, part.first, source)?;
            part.first += before;
        }
        Ok(parts)
    }
}

/// Returns the shape error of a matrix of `rows` rows, whose columns come `together` at a time.
pub(super) fn shape_fault(rows: usize, columns: usize, together: usize) -> Error {
    let expected = vec![rows.max(1), columns.next_multiple_of(together).max(together)];
    Error::Shape { op: "matmul", tensor: "weights", got: vec![rows, columns], expected }
}

/// Gate and up in turns: blocks of `lanes` rows come from one and the other. `read` has `outputs` gates, then as many ups,
/// each of `width` elements. Ranges are whole blocks, read one at a time.
fn interleave_rows<T: Copy + Default>(
    lanes: usize,
    outputs: usize,
    width: usize,
    read: impl Fn(Range<usize>, &mut [T]) -> Result<()> + Sync,
) -> impl Fn(Range<usize>, &mut [T]) -> Result<()> + Sync {
    move |range: Range<usize>, out: &mut [T]| {
        let block = range.start / lanes;
        let first = block / 2 * lanes;
        let rows = lanes.min(outputs - first);
        let (values, padding) = out.split_at_mut(rows * width);
        padding.fill(T::default());
        let start = block % 2 * outputs + first;
        read(start..start + rows, values)
    }
}

impl Part {
    /// Zeros for `rows` rows, in as many parts as bindings of the device's size take; each output is
    /// one row. With scales if `scaled`.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if no part can be that small, [`Error::OutOfMemory`].
    pub fn empty(device: &Device, label: &str, layout: Layout, rows: usize, scaled: bool) -> Result<Vec<Part>> {
        let (group, group_bytes) = (layout.group(), layout.group_bytes());
        let max_groups = (device.largest_binding() / group_bytes as u64) as usize;
        if max_groups == 0 {
            return Err(Error::Limit {
                adapter: device.name(),
                what: format!("{group} rows of {label}"),
                needed: group_bytes as u64,
                limit: device.largest_binding(),
                unit: "bytes in one binding",
                hint: "use a smaller model",
            });
        }
        let part = |first: usize| {
            let outputs = (rows - first).min(max_groups * group);
            let padded = outputs.next_multiple_of(group);
            let buffer = Buffer::storage(device, label, (padded / group * group_bytes) as u64)?;
            let scales = || Buffer::storage(device, "row scales", (padded * size_of::<f32>()) as u64);
            Ok(Part { buffer, scales: scaled.then(scales).transpose()?, format: layout.format, first, outputs })
        };
        (0..rows).step_by(max_groups * group).map(part).collect()
    }

    /// Uploads its `rows` rows, which follow `before` others in `source`, on all cores, in pieces that bound the memory in
    /// flight.
    pub fn fill(&self, device: &Device, layout: Layout, rows: usize, before: usize, source: Source) -> Result<()> {
        for rows in layout.portions(rows) {
            let offset = (rows.start / layout.group() * layout.group_bytes()) as u64;
            let scales_offset = (rows.start * size_of::<f32>()) as u64;
            let range = before + rows.start..before + rows.end;
            let (interleaved, scales) = layout.interleave(range, source, self.scales.is_some())?;
            self.buffer.write(device, offset, &interleaved);
            if let Some(buffer) = &self.scales {
                buffer.write(device, scales_offset, &scales);
            }
            Pass::submit(device, None, |_| Ok(()))?;
            device.wait()?;
        }
        Ok(())
    }
}
