//! Hidden states of the target, which a draft reads beside tokens: shaders/kernels/remember.wgsl, keep.wgsl, recall.wgsl.
//!
//! A target's pass puts states of its rows side by side as features, which the draft's projection brings to the draft's
//! width. That is kept in f32, since states of deep layers exceed the range of f16, and added to the draft's embeddings.

use super::{MAX_ROWS, Rows, Tensor};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct RememberParams {
    pieces: u32,
    parts: u32,
    part: u32,
    scale: f32,
    epsilon: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct KeptParams {
    pieces: u32,
    positions: u32,
}

/// A normalisation of states: `x / √(mean(x²) + ε) · gain`.
#[derive(Clone, Copy)]
pub struct StateNorm<'a> {
    /// `[1, width]`.
    pub gain: &'a Tensor,
    /// ε.
    pub epsilon: f32,
}

/// Op that puts a state of each row among its features.
pub struct Remember {
    dispatch: Dispatch,
    width: usize,
}

impl Remember {
    /// `features[r, part] = scale · x[r]`, or of the normalised `x[r]` with `norm`, for each row r.
    ///
    /// Shapes: `x` is `[rows, width]`; `features` is `[rows, parts · width]`; `width` is a multiple of 4.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    pub fn new(
        device: &Device,
        x: &Tensor,
        norm: Option<StateNorm>,
        scale: f32,
        features: &Tensor,
        part: usize,
    ) -> Result<Remember> {
        let (width, parts) = (x.width, features.width / x.width);
        x.expect("remember", "x", 1, width.next_multiple_of(4))?;
        features.expect("remember", "features", MAX_ROWS, parts.max(part + 1) * width)?;
        // As for norms: a CPU's barriers cost more than the work they would share out.
        let lanes = if device.is_software() { 8 } else { 64 };
        let files: &[&str] = match norm {
            None => &["remember", "state/raw"],
            Some(_) => &["remember", "state/normed", "shared/row_scale", "shared/reduce"],
        };
        let kernel = device.kernel(files, &[("LANES", lanes)])?;
        let params = RememberParams {
            pieces: (width / 4) as u32,
            parts: parts as u32,
            part: part as u32,
            scale,
            epsilon: norm.map_or(0.0, |norm| norm.epsilon),
        };
        let params = Buffer::uniform(device, "remember params", &params)?;
        let mut operands = vec![&params, &x.buffer, &features.buffer];
        if let Some(StateNorm { gain, .. }) = norm {
            gain.expect("remember", "gain", 1, width)?;
            operands.push(&gain.buffer);
        }
        Ok(Remember { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, width })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let work = Work::of(rows, [1, self.width], 8 * rows * self.width, 4 * rows * self.width);
        self.dispatch.encode_over(pass, [rows as u32, 1, 1], work);
    }
}

/// Projected states of the tokens of sequences: row p of a slot is that of the token before position p, and row 0 is what
/// the first token reads.
pub struct KeptStates {
    buffer: Buffer,
    slots: usize,
    positions: usize,
    width: usize,
}

/// Name of the buffer, for messages.
const KEPT: &str = "target's states";

impl KeptStates {
    /// Room for `positions` positions of each of `slots` sequences, whose row 0 is `first`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] unless the width is a multiple of 4; as [`Buffer::storage`].
    pub fn new(device: &Device, [slots, positions]: [usize; 2], first: &[f32]) -> Result<KeptStates> {
        let width = first.len();
        if !width.is_multiple_of(4) {
            let (got, expected) = (vec![positions, width], vec![positions, width.next_multiple_of(4)]);
            return Err(Error::Shape { op: "keep", tensor: "states", got, expected });
        }
        let slot_bytes = KeptStates::bytes(positions, width);
        let buffer = Buffer::storage(device, KEPT, (slots as u64).saturating_mul(slot_bytes))?;
        if first.iter().any(|&value| value != 0.0) {
            (0..slots as u64).for_each(|slot| buffer.write(device, slot * slot_bytes, first));
        }
        Ok(KeptStates { buffer, slots, positions, width })
    }

    /// Copies the rows of `other`, which has fewer slots.
    pub fn copy_from(&self, device: &Device, other: &KeptStates) {
        self.buffer.copy_from(device, &other.buffer, 0, other.buffer.bytes());
    }

    /// The first `rows` rows of slot `slot`. Waits for the device.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn read_slot(&self, device: &Device, slot: usize, rows: usize) -> Result<Vec<f32>> {
        self.buffer.read(device, slot as u64 * KeptStates::bytes(self.positions, self.width), rows * self.width)
    }

    /// Sets the first rows of slot `slot`.
    pub fn write_slot(&self, device: &Device, slot: usize, rows: &[f32]) {
        self.buffer.write(device, slot as u64 * KeptStates::bytes(self.positions, self.width), rows);
    }

    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Checks that a kernel can bind the states of `slots` sequences.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`].
    pub fn check(device: &Device, [slots, positions]: [usize; 2], width: usize) -> Result<()> {
        Buffer::check(device, KEPT, (slots as u64).saturating_mul(KeptStates::bytes(positions, width)))
    }

    /// Device memory of a slot with `positions` positions.
    pub fn bytes(positions: usize, width: usize) -> u64 {
        4 * (positions as u64).saturating_mul(width as u64)
    }

    fn params(&self, device: &Device, label: &str) -> Result<Buffer> {
        let params = KeptParams { pieces: (self.width / 4) as u32, positions: self.positions as u32 };
        Buffer::uniform(device, label, &params)
    }

    /// Records `dispatch` for `rows` rows, of which `reads` operands are read and one is written.
    fn record(width: usize, dispatch: &Dispatch, pass: &mut Pass, rows: usize, reads: usize) {
        let work = Work::of(rows, [1, width], 4 * (reads + 1) * rows * width, (reads - 1) * rows * width);
        dispatch.encode_over(pass, [(width / 4).div_ceil(64) as u32, rows as u32, 1], work);
    }
}

/// Op that keeps a pass's rows.
pub struct Keep {
    dispatch: Dispatch,
    width: usize,
}

impl Keep {
    /// `kept[slot, p + 1] = x[r]` for each row r, at position p of its slot.
    ///
    /// Shapes: `x` is `[rows, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if it does not fit the states.
    pub fn new<'a>(device: &Device, rows: impl Into<Rows<'a>>, x: &Tensor, kept: &KeptStates) -> Result<Keep> {
        let rows = rows.into();
        x.expect("keep", "x", 1, kept.width)?;
        let files = [&["keep", "shared/step"], rows.files()].concat();
        let kernel = device.kernel(&files, &[])?;
        let params = kept.params(device, "keep params")?;
        let operands = [&params, rows.step(), &x.buffer, &kept.buffer];
        let operands: Vec<&Buffer> = operands.into_iter().chain(rows.batch()).collect();
        Ok(Keep { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, width: kept.width })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        KeptStates::record(self.width, &self.dispatch, pass, rows, 1);
    }
}

/// Op that adds kept rows to a draft's embeddings.
pub struct Recall {
    dispatch: Dispatch,
    width: usize,
}

impl Recall {
    /// `h[r] += kept[slot, min(p, n)]` for each row r, at position p of its slot, of which `sessions` says that the target
    /// has read n rows. Without `repeats`, rows at positions beyond n get nothing.
    ///
    /// Shapes: `h` is `[rows, width]`; `sessions` holds a [`super::Session`] for each slot.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    pub fn new<'a>(
        device: &Device,
        rows: impl Into<Rows<'a>>,
        sessions: &Buffer,
        kept: &KeptStates,
        repeats: bool,
        h: &Tensor,
    ) -> Result<Recall> {
        let rows = rows.into();
        h.expect("recall", "h", 1, kept.width)?;
        let files = [&["recall", "shared/step", "shared/round"], rows.files()].concat();
        let kernel = device.kernel(&files, &[("REPEAT", u32::from(repeats))])?;
        let params = kept.params(device, "recall params")?;
        let operands = [&params, rows.step(), sessions, &kept.buffer, &h.buffer];
        let operands: Vec<&Buffer> = operands.into_iter().chain(rows.batch()).collect();
        Ok(Recall { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, width: kept.width })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        KeptStates::record(self.width, &self.dispatch, pass, rows, 2);
    }
}
