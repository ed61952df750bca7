//! Weight matrices on the device.
//!
//! They lie interleaved: the 8-value piece `p` of `lanes` neighbouring rows is contiguous, so lanes that each own a row
//! read side by side and nothing is ever summed across lanes. Plain rows with a reduction across lanes were the
//! alternative; those read x once per lane instead of once per subgroup, which is where many rows spend their time.
//! A matrix larger than one binding is split by rows into parts.

use super::expect_len;
use super::interleaved::Layout;
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
    pub(super) fn encode(self, values: &[f32], out: &mut [u8]) {
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

    /// Widens what [`WeightFormat::encode`] wrote.
    pub(super) fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let sixteen = |out: &mut [f32], convert: fn(u16) -> f32| {
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = convert(u16::from_le_bytes(*bytes));
            }
        };
        match self {
            WeightFormat::Bf16 => sixteen(out, |bits| half::bf16::from_bits(bits).to_f32()),
            WeightFormat::F16 => sixteen(out, |bits| half::f16::from_bits(bits).to_f32()),
            WeightFormat::F32 => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
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
        let layout = Layout { lanes: plan.lanes as usize, columns, format };
        let parts = Part::empty(device, label, layout, rows, plan.products != Products::Plain)?;
        let paired = |part: Part| Part { first: part.first / pair, outputs: part.outputs / pair, ..part };
        let matrix = Matrix::of_parts(device, parts.into_iter().map(paired).collect(), pair, layout);
        matrix.fill(device, source)?;
        Ok(matrix)
    }

    /// A matrix whose parts are made.
    pub(super) fn of_parts(device: &Device, parts: Vec<Part>, pair: usize, layout: Layout) -> Matrix {
        let outputs = parts.iter().map(|part| part.outputs).sum();
        let variants = Variant::defaults(device, pair as u32);
        let Layout { lanes, columns, format } = layout;
        Matrix { parts, outputs, columns, pair, format, lanes: lanes as u32, variants }
    }

    /// Uploads the rows that `source` gives, on all cores, in pieces that bound the memory in flight.
    fn fill(&self, device: &Device, source: &MatrixSource) -> Result<()> {
        let layout = self.layout();
        for part in &self.parts {
            let first = part.first * self.pair;
            for rows in layout.portions(part.outputs * self.pair) {
                let offset = (rows.start / layout.group() * layout.group_bytes()) as u64;
                let scales_offset = (rows.start * size_of::<f32>()) as u64;
                let (interleaved, scales) = layout.interleave(first + rows.start..first + rows.end, source)?;
                part.buffer.write(device, offset, &interleaved);
                if let Some(buffer) = &part.scales {
                    buffer.write(device, scales_offset, &scales);
                }
                Pass::submit(device, None, |_| Ok(()))?;
                device.wait()?;
            }
        }
        Ok(())
    }

    /// Puts `values`, `[outputs, columns]`, in the place of the weights, rounded to their format.
    ///
    /// **Errors**: [`Error::Shape`] if there are more or fewer values, or the matrix is a pair; as [`Device::check`].
    pub fn write_rows(&self, device: &Device, values: &[f32]) -> Result<()> {
        self.expect_single("write_rows")?;
        expect_len("write_rows", "values", values, self.outputs * self.columns)?;
        self.fill(device, &|rows, out| {
            out.copy_from_slice(&values[rows.start * self.columns..rows.end * self.columns]);
            Ok(())
        })
    }

    /// Reads the weights back, `[outputs, columns]`, widened to f32.
    ///
    /// **Errors**: [`Error::Shape`] if the matrix is a pair; as [`Device::check`].
    pub fn read_rows(&self, device: &Device) -> Result<Vec<f32>> {
        self.expect_single("read_rows")?;
        let layout = self.layout();
        let mut values = vec![0.0; self.outputs * self.columns];
        for part in &self.parts {
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
    /// **Errors**: as [`Buffer::storage`].
    pub fn gradients(&self, device: &Device) -> Result<Vec<Buffer>> {
        self.part_lens().map(|len| Buffer::storage(device, "gradients", (len * size_of::<f32>()) as u64)).collect()
    }

    /// The weights of each part, in the matrix's format and as they lie on the device. Of an f32 matrix they may be
    /// changed in place, element by element.
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        self.parts.iter().map(|part| &part.buffer)
    }

    /// Weights of each part, with those that only pad it.
    pub(super) fn part_lens(&self) -> impl Iterator<Item = usize> {
        self.buffers().map(|buffer| buffer.bytes() as usize / self.format.bytes())
    }

    /// Checks that an output has one weight row.
    pub(super) fn expect_single(&self, op: &'static str) -> Result<()> {
        if self.pair == 1 {
            return Ok(());
        }
        let [got, expected] = [self.rows(), self.outputs].map(|rows| vec![rows, self.columns]);
        Err(Error::Shape { op, tensor: "weights", got, expected })
    }

    /// How its rows lie.
    pub(super) fn layout(&self) -> Layout {
        Layout { lanes: self.lanes as usize, columns: self.columns, format: self.format }
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

impl Part {
    /// Zeros for `rows` rows, in as many parts as bindings of the device's size take; each output is
    /// one row. With scales if `scaled`.
    ///
    /// **Errors**: [`Error::Limit`] if no part can be that small, [`Error::OutOfMemory`].
    pub fn empty(device: &Device, label: &str, layout: Layout, rows: usize, scaled: bool) -> Result<Vec<Part>> {
        let (group, group_bytes) = (layout.group(), layout.group_bytes());
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
        let part = |first: usize| {
            let outputs = (rows - first).min(most_groups * group);
            let padded = outputs.next_multiple_of(group);
            let buffer = Buffer::storage(device, label, (padded / group * group_bytes) as u64)?;
            let scales = || Buffer::storage(device, "row scales", (padded * size_of::<f32>()) as u64);
            Ok(Part { buffer, scales: scaled.then(scales).transpose()?, first, outputs })
        };
        (0..rows).step_by(most_groups * group).map(part).collect()
    }
}
