//! The bookkeeping of a round, on the device: shaders/inputs.wgsl and shaders/accept.wgsl.

use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

/// State of a session between rounds, as shaders/shared/round.wgsl lays it out.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Session {
    /// Committed tokens, the prompt's included.
    pub tokens: u32,
    /// Rows of the target's caches that hold committed tokens.
    pub target_rows: u32,
    /// Likewise the draft's.
    pub draft_rows: u32,
}

/// One pass's constants, as shaders/shared/round.wgsl lays them out.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
pub struct RoundParams {
    /// K, at most 16.
    pub drafts: u32,
    /// The draft's mask token.
    pub mask: u32,
    /// 1 if one draft pass proposes all K, 0 if each takes a pass.
    pub parallel: u32,
    /// Index of this pass among those.
    pub pass_index: u32,
    /// Rows to feed: as many as are needed, or more.
    pub rows: u32,
    /// The sequence's slot of the caches.
    pub slot: u32,
}

/// The buffers that rounds work on. All hold u32, but for the session.
#[derive(Clone, Copy)]
pub struct RoundBuffers<'a> {
    /// One [`Session`].
    pub session: &'a Buffer,
    /// Committed tokens, with room for the context and a round beyond it.
    pub tokens: &'a Buffer,
    /// d1 .. dK.
    pub proposals: &'a Buffer,
    /// t0 .. tK.
    pub choices: &'a Buffer,
    /// Number of tokens that the round committed, then the tokens: `1 + 17`.
    pub record: &'a Buffer,
}

/// Model whose rows are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelRole {
    /// The draft's.
    Draft,
    /// The target's: the newest committed token and the proposals.
    Target,
}

/// The rows of a forward pass, with its operands bound.
pub struct BuildInputs {
    dispatch: Dispatch,
    rows: usize,
}

impl BuildInputs {
    /// `ids[r]` = the token at position `start + r`: committed, a proposal, or the mask; and the step that says where.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Gpu`].
    /// Source: arXiv:2504.18583.
    pub fn new(
        device: &Device,
        whose: ModelRole,
        params: RoundParams,
        buffers: RoundBuffers,
        step: &Buffer,
        ids: &Buffer,
    ) -> Result<BuildInputs> {
        let verify = u32::from(whose == ModelRole::Target);
        let kernel = device.kernel(&["inputs", "shared/step", "shared/round"], &[("VERIFY", verify)])?;
        let rows = params.rows as usize;
        let params = Buffer::uniform(device, "inputs params", &params)?;
        let operands = [&params, buffers.session, buffers.tokens, buffers.proposals, step, ids];
        Ok(BuildInputs { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, rows })
    }

    /// Records it.
    pub fn encode(&self, pass: &mut Pass) {
        self.dispatch.encode(pass, Work::of(self.rows, [1, 1], 8 * self.rows, 0));
    }
}

/// The end of a round, with its operands bound.
pub struct Accept {
    dispatch: Dispatch,
    drafts: usize,
}

impl Accept {
    /// Commits the proposals that agree with the target's choices, and the target's next token.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Gpu`].
    /// Source: arXiv:2211.17192, for greedy decoding.
    pub fn new(device: &Device, params: RoundParams, buffers: RoundBuffers) -> Result<Accept> {
        let kernel = device.kernel(&["accept", "shared/round"], &[])?;
        let drafts = params.drafts as usize;
        let params = Buffer::uniform(device, "accept params", &params)?;
        let RoundBuffers { session, tokens, proposals, choices, record } = buffers;
        let operands = [&params, proposals, choices, session, tokens, record];
        Ok(Accept { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, drafts })
    }

    /// Records it.
    pub fn encode(&self, pass: &mut Pass) {
        self.dispatch.encode(pass, Work::of(self.drafts + 1, [1, 1], 16 * (self.drafts + 1), 0));
    }
}
