//! The bookkeeping of a round, on the device: shaders/kernels/inputs.wgsl and shaders/kernels/accept.wgsl.

use super::rows::CHOICES_CONSTANT;
use super::{MAX_ROWS, PassRow};
use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

/// State of a sequence between rounds, as shaders/shared/round.wgsl lays it out.
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

impl Session {
    /// The state after a round of `drafts` proposals that committed `committed` tokens, as shaders/kernels/accept.wgsl
    /// leaves it.
    pub fn after(self, proposer: ProposerKind, drafts: u32, committed: u32) -> Session {
        let tokens = self.tokens + committed;
        // All but the newest token have been rows of the target's pass.
        let target_rows = tokens - 1;
        let draft_rows = match proposer {
            // Without a proposal it has read nothing.
            _ if drafts == 0 => self.draft_rows,
            ProposerKind::LookedUp => self.draft_rows,
            ProposerKind::Parallel => self.tokens,
            // It has also read its own proposals but the last, of which some may have been refused.
            ProposerKind::Serial => (self.tokens + drafts - 1).min(target_rows),
        };
        Session { tokens, target_rows, draft_rows }
    }

    /// Committed tokens that the draft has not read.
    pub fn unread(self) -> u32 {
        self.tokens - self.draft_rows
    }
}

/// How the proposals of a turn come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProposerKind {
    /// The host knows them, or there are none.
    LookedUp,
    /// A draft makes all of them in one pass, in which it reads masks.
    Parallel,
    /// A draft makes each in a pass of its own.
    Serial,
}

/// A sequence's part in a round, as shaders/shared/round.wgsl lays it out.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Turn {
    /// Slot of its session and of its rows of the caches.
    pub slot: u32,
    /// Index of its first token.
    pub first_token: u32,
    /// K, at most 16.
    pub drafts: u32,
    proposer: u32,
}

impl Turn {
    /// A turn of `drafts` proposals by `proposer`.
    pub fn new(slot: usize, first_token: usize, drafts: usize, proposer: ProposerKind) -> Turn {
        let [slot, first_token, drafts] = [slot, first_token, drafts].map(|count| count as u32);
        let proposer = match proposer {
            ProposerKind::LookedUp => 0,
            ProposerKind::Parallel => 1,
            ProposerKind::Serial => 2,
        };
        Turn { slot, first_token, drafts, proposer }
    }

    /// Creates room for the turns of a round.
    ///
    /// # Errors
    ///
    /// As [`Buffer::uniform`].
    pub fn buffer(device: &Device) -> Result<Buffer> {
        Buffer::uniform(device, "turns", &[Turn::default(); MAX_ROWS])
    }
}

/// Words of a turn's record: the number of tokens that it committed, and room for them.
pub const RECORD: usize = 2 + MAX_ROWS / 2;
/// The same for shaders.
pub(super) const RECORD_CONSTANT: (&str, u32) = ("RECORD", RECORD as u32);

/// The buffers that rounds work on. All hold u32, but for turns and sessions.
#[derive(Clone, Copy)]
pub struct RoundBuffers<'a> {
    /// [`Turn::buffer`]'s.
    pub turns: &'a Buffer,
    /// A [`Session`] for each slot.
    pub sessions: &'a Buffer,
    /// Committed tokens, with room for each sequence's context and a round beyond it.
    pub tokens: &'a Buffer,
    /// d1 .. dK of each turn, [`super::CHOICES`] apart.
    pub proposals: &'a Buffer,
}

/// Model whose rows are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelRole {
    /// The draft's.
    Draft,
    /// The target's: the newest committed token and the proposals.
    Target,
}

impl ModelRole {
    /// The constant by which kernels tell a draft's rows from a target's.
    pub(super) fn constant(self) -> (&'static str, u32) {
        ("DRAFT", u32::from(self == ModelRole::Draft))
    }
}

/// Rows and outputs of a pass, each as a turn and an index among the turn's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassPlan {
    /// At most [`MAX_ROWS`]; each turn's stand side by side, in order.
    pub rows: Vec<(usize, usize)>,
    /// At most [`MAX_ROWS`].
    pub outputs: Vec<(usize, usize)>,
    /// Index of this pass among those of a serial draft.
    pub pass_index: usize,
    /// The draft's mask token.
    pub mask: u32,
}

/// As shaders/kernels/inputs.wgsl lays it out.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct InputsParams {
    rows: u32,
    outputs: u32,
    pass_index: u32,
    mask: u32,
}

/// As shaders/kernels/inputs.wgsl lays it out.
#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct PlannedRow {
    row_turn: u32,
    row_index: u32,
    output_turn: u32,
    output_index: u32,
}

/// The rows of a forward pass, with its operands bound.
pub struct BuildInputs {
    dispatch: Dispatch,
    params: Buffer,
    plan: Buffer,
}

impl BuildInputs {
    /// For each row of the plan `ids[r]` = the token at its position: committed, a proposal, or the mask; and the step and
    /// the [`PassRow`]s that say where rows are and which of them choose.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Gpu`].
    /// Source: arXiv:2504.18583.
    pub fn new(
        device: &Device,
        role: ModelRole,
        buffers: RoundBuffers,
        [step, ids, batch]: [&Buffer; 3],
    ) -> Result<BuildInputs> {
        let verify = u32::from(role == ModelRole::Target);
        let files = ["inputs", "shared/step", "shared/round", "shared/pass_row"];
        let kernel = device.kernel(&files, &[("VERIFY", verify), CHOICES_CONSTANT])?;
        let params = Buffer::uniform(device, "inputs params", &InputsParams::default())?;
        let plan = Buffer::with_values(device, "inputs plan", &[PlannedRow::default(); MAX_ROWS])?;
        let RoundBuffers { turns, sessions, tokens, proposals } = buffers;
        let operands = [&params, &plan, turns, sessions, tokens, proposals, step, ids, batch];
        Ok(BuildInputs { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])?, params, plan })
    }

    /// Sets the plan of the passes that are recorded from here on and submitted before the next one is set.
    pub fn plan(&self, device: &Device, plan: &PassPlan) {
        let [rows, outputs, pass_index] = [plan.rows.len(), plan.outputs.len(), plan.pass_index].map(|n| n as u32);
        self.params.write(device, 0, &[InputsParams { rows, outputs, pass_index, mask: plan.mask }]);
        let mut planned = [PlannedRow::default(); MAX_ROWS];
        for (planned, &(turn, index)) in planned.iter_mut().zip(&plan.rows) {
            (planned.row_turn, planned.row_index) = (turn as u32, index as u32);
        }
        for (planned, &(turn, index)) in planned.iter_mut().zip(&plan.outputs) {
            (planned.output_turn, planned.output_index) = (turn as u32, index as u32);
        }
        self.plan.write(device, 0, &planned[..plan.rows.len().max(plan.outputs.len())]);
    }

    /// Records it for the `rows` rows of the plan.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        self.dispatch.encode(pass, Work::of(rows, [1, 1], rows * (8 + size_of::<PassRow>()), 0));
    }
}

/// The end of a round, with its operands bound.
pub struct Accept {
    dispatch: Dispatch,
}

impl Accept {
    /// Commits, for each turn, the proposals that agree with the target's choices, and the target's next token.
    /// `choices` has t0 .. tK of each turn, [`super::CHOICES`] apart; `record` gets [`RECORD`] words of each.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Gpu`].
    /// Source: arXiv:2211.17192, for greedy decoding.
    pub fn new(device: &Device, buffers: RoundBuffers, choices: &Buffer, record: &Buffer) -> Result<Accept> {
        let kernel = device.kernel(&["accept", "shared/round"], &[CHOICES_CONSTANT, RECORD_CONSTANT])?;
        let RoundBuffers { turns, sessions, tokens, proposals } = buffers;
        let operands = [turns, proposals, choices, sessions, tokens, record];
        Ok(Accept { dispatch: kernel.dispatch(device, &operands, [1, 1, 1])? })
    }

    /// Records it for `turns` turns of `rows` rows in all.
    pub fn encode(&self, pass: &mut Pass, turns: usize, rows: usize) {
        self.dispatch.encode_over(pass, [turns as u32, 1, 1], Work::of(rows, [1, 1], 16 * rows, 0));
    }
}
