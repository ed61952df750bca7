//! Hidden states of the target, which a draft reads beside tokens: shaders/kernels/remember.wgsl and
//! shaders/kernels/recall.wgsl.

use super::{MAX_ROWS, Rows, Tensor};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct RememberParams {
    pieces: u32,
    parts: u32,
    part: u32,
    positions: u32,
    slot: u32,
    epsilon: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct RecallParams {
    pieces: u32,
    slot: u32,
}

/// Hidden states of some layers of a target at each position of one sequence, `[positions, parts · width]` in 16 bits.
pub struct HiddenStates {
    buffer: Buffer,
    positions: usize,
    parts: usize,
    width: usize,
}

impl HiddenStates {
    /// Room for the outputs of `parts` layers, each `width` wide.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] unless the width is a multiple of 4; as [`Buffer::storage`].
    pub fn new(device: &Device, positions: usize, parts: usize, width: usize) -> Result<HiddenStates> {
        if !width.is_multiple_of(4) {
            let (got, expected) = (vec![positions, width], vec![positions, width.next_multiple_of(4)]);
            return Err(Error::Shape { op: "remember", tensor: "states", got, expected });
        }
        let buffer = Buffer::storage(device, "target's states", HiddenStates::bytes(positions, parts * width))?;
        Ok(HiddenStates { buffer, positions, parts, width })
    }

    /// Device memory that states of `width` values, those of all layers, take.
    pub fn bytes(positions: usize, width: usize) -> u64 {
        2 * (positions as u64).saturating_mul(width as u64)
    }
}

/// Op that stores the output of one layer for a pass's rows.
pub struct StoreHidden {
    dispatch: Dispatch,
    width: usize,
}

impl StoreHidden {
    /// `states[p, part] = x[r] / √(mean(x[r]²) + ε)` for each row r, at position p of slot `slot`; other slots' rows are
    /// passed over.
    ///
    /// Shapes: `x` is `[rows, width]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if it does not fit the states.
    pub fn new<'a>(
        device: &Device,
        rows: impl Into<Rows<'a>>,
        slot: usize,
        x: &Tensor,
        epsilon: f32,
        states: &HiddenStates,
        part: usize,
    ) -> Result<StoreHidden> {
        let rows = rows.into();
        x.expect("remember", "x", 1, states.width)?;
        if part >= states.parts {
            return Err(Error::Shape {
                op: "remember",
                tensor: "states",
                got: vec![states.parts],
                expected: vec![part + 1],
            });
        }
        // As for norms: a CPU's barriers cost more than the work they would share out.
        let lanes = if device.is_software() { 8 } else { 64 };
        let files = [&["remember", "shared/row_scale", "shared/reduce", "shared/step"], rows.files()].concat();
        let kernel = device.kernel(&files, &[("LANES", lanes)])?;
        let params = RememberParams {
            pieces: (states.width / 4) as u32,
            parts: states.parts as u32,
            part: part as u32,
            positions: states.positions as u32,
            slot: slot as u32,
            epsilon,
        };
        let params = Buffer::uniform(device, "remember params", &params)?;
        let operands = [&params, rows.step(), &x.buffer, &states.buffer];
        let operands: Vec<&Buffer> = operands.into_iter().chain(rows.batch()).collect();
        Ok(StoreHidden { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, width: states.width })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let work = Work::of(rows, [1, self.width], 6 * rows * self.width, 3 * rows * self.width);
        self.dispatch.encode_over(pass, [rows as u32, 1, 1], work);
    }
}

/// Op that loads the stored states of the token before each row's.
pub struct LoadHidden {
    dispatch: Dispatch,
    width: usize,
}

impl LoadHidden {
    /// `y[r] = states[p - 1]` for each row r, at position p of slot `slot`, or 0 where the target has not been: past the
    /// rows that the slot's session says it has read, and at the beginning. Other slots' rows are passed over.
    ///
    /// Shapes: `y` is `[rows, parts · width]`; `sessions` holds a [`super::Session`] for each slot.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    pub fn new<'a>(
        device: &Device,
        rows: impl Into<Rows<'a>>,
        slot: usize,
        sessions: &Buffer,
        states: &HiddenStates,
        y: &Tensor,
    ) -> Result<LoadHidden> {
        let rows = rows.into();
        let width = states.parts * states.width;
        y.expect("recall", "y", MAX_ROWS, width)?;
        let files = [&["recall", "shared/step", "shared/round"], rows.files()].concat();
        let kernel = device.kernel(&files, &[])?;
        let params = RecallParams { pieces: (width / 4) as u32, slot: slot as u32 };
        let params = Buffer::uniform(device, "recall params", &params)?;
        let operands = [&params, rows.step(), sessions, &states.buffer, &y.buffer];
        let operands: Vec<&Buffer> = operands.into_iter().chain(rows.batch()).collect();
        Ok(LoadHidden { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, width })
    }

    /// Records it for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let work = Work::of(rows, [1, self.width], 6 * rows * self.width, 0);
        self.dispatch.encode_over(pass, [(self.width / 4).div_ceil(64) as u32, rows as u32, 1], work);
    }
}
