//! `y[r] = x[ids[r]]`, rows made of others, of matrices and of activations: shaders/kernels/gather.wgsl.

use super::Tensor;
use super::matmul::fold;
use super::matrix::{Matrix, Part};
use super::weight_layout::Layout;
use crate::error::{Error, OptionName, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct GatherParams {
    pieces: u32,
    rows_out: u32,
    source_first: u32,
    source_rows: u32,
}

/// Threads of a workgroup.
const GROUP: usize = 64;

/// Words of an activation that are copied at a time, where rows are a multiple of it; else words go one by one.
const WORDS: usize = 4;

/// A copy of rows, bound.
pub struct Gather {
    dispatch: Dispatch,
    width: usize,
    words: usize,
}

impl Gather {
    /// `y[r] = x[ids[r]]`. A row whose id is past the rows of `x` stays as it is.
    ///
    /// Shapes: `x` is `[any, width]`, `y` is `[rows, width]`; `ids` holds `rows` words.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    pub fn new(device: &Device, ids: &Buffer, [x, y]: [&Tensor; 2]) -> Result<Gather> {
        let fault = |tensor, got, expected| Err(Error::Shape { op: "gather", tensor, got, expected });
        y.expect("gather", "y", 1, x.width)?;
        let count = ids.bytes() as usize / size_of::<u32>();
        if count < y.rows {
            return fault("ids", vec![count], vec![y.rows]);
        }
        // Rows of activations lie as an interleaved matrix of one lane does.
        let words = if x.width.is_multiple_of(WORDS) { WORDS } else { 1 };
        let kernel = device.kernel(&["gather"], &[("WORDS", words as u32), ("LANES", 1)])?;
        let params = GatherParams {
            pieces: (x.width / words) as u32,
            rows_out: y.rows as u32,
            source_first: 0,
            source_rows: x.rows as u32,
        };
        let params = Buffer::uniform(device, "gather params", &params)?;
        let dispatch = kernel.dispatch(device, &[&params, ids, &x.buffer, &y.buffer], [1, 1, 1])?;
        Ok(Gather { dispatch, width: x.width, words })
    }

    /// Records the copy of the first `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let [x, y] = fold((rows * self.width / self.words).div_ceil(GROUP) as u32);
        let work = Work::of(rows, [1, self.width], 8 * rows * self.width, 0);
        self.dispatch.encode_over(pass, [x, y, 1], work);
    }
}

impl Matrix {
    /// A matrix of the rows `ids` of this one, bit for bit as an upload of those rows would be. They are copied on the
    /// device.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if there is no id, or this is a pair of matrices; [`Error::TokenRange`] for an id past the
    /// rows; [`Error::Option`] if the rows are of several formats; [`Error::OutOfMemory`], as
    /// [`Device::check`](crate::gpu::GpuContext::check).
    pub fn gather(&self, device: &Device, label: &str, ids: &[u32]) -> Result<Matrix> {
        if ids.is_empty() || self.pair() != 1 {
            let (got, expected) = (vec![ids.len(), self.rows()], vec![ids.len().max(1), self.outputs()]);
            return Err(Error::Shape { op: "gather", tensor: "ids", got, expected });
        }
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.rows()) {
            return Err(Error::TokenRange { what: "row", id, vocab: self.rows() });
        }
        let [format] = self.formats()[..] else {
            let reason = format!("rows of {label} are stored in several formats; load the model in BF16");
            return Err(Error::Option { option: OptionName::Dtype, reason });
        };
        let (lanes, columns) = (self.lanes(), self.columns());
        let layout = Layout { lanes: lanes as usize, columns, format };
        let scaled = self.parts().iter().any(|part| part.scales.is_some());
        let parts = Part::empty(device, label, layout, ids.len(), scaled)?;
        let unit = format.unit_bytes();
        let units = [format.row_bytes(columns) / unit, unit / size_of::<u32>()];
        Pass::submit(device, None, |pass| {
            for part in &parts {
                let ids = Buffer::with_values(device, "gathered ids", &ids[part.first..part.first + part.outputs])?;
                for source in self.parts() {
                    let buffers = [&source.buffer, &part.buffer];
                    copy(device, pass, lanes, units, &ids, [source, part], buffers)?;
                    if let (Some(from), Some(to)) = (&source.scales, &part.scales) {
                        copy(device, pass, lanes, [1, 1], &ids, [source, part], [from, to])?;
                    }
                }
            }
            Ok(())
        })?;
        Ok(Matrix::of_parts(device, [lanes, self.slices()], columns, parts, 1))
    }
}

/// Records the copy of what `source` has for `part`, rows of `pieces` pieces of `words` words, from one buffer to the
/// other.
fn copy(
    device: &Device,
    pass: &mut Pass,
    lanes: u32,
    [pieces, words]: [usize; 2],
    ids: &Buffer,
    [source, part]: [&Part; 2],
    [from, to]: [&Buffer; 2],
) -> Result<()> {
    let kernel = device.kernel(&["gather"], &[("WORDS", words as u32), ("LANES", lanes)])?;
    let params = GatherParams {
        pieces: pieces as u32,
        rows_out: part.outputs as u32,
        source_first: source.first as u32,
        source_rows: source.outputs as u32,
    };
    let params = Buffer::uniform(device, "gather params", &params)?;
    let all_pieces = part.outputs.next_multiple_of(lanes as usize) * pieces;
    let [x, y] = fold(all_pieces.div_ceil(GROUP) as u32);
    let work = Work::of(part.outputs, [part.outputs, pieces * words], 8 * part.outputs * pieces * words, 0).stored();
    kernel.dispatch(device, &[&params, ids, from, to], [x, y, 1])?.encode(pass, work);
    Ok(())
}
