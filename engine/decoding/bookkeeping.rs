//! The state of all sequences on one device: their sessions and tokens, and what kernels are told of a round.

use crate::error::Result;
use crate::gpu::{Buffer, Device};
use crate::ops::{CHOICES, PassRow, RoundBuffers, Session, TokenCounts, Turn, TurnSampling};

/// Buffers that hold the sequences' state, by slot, and those of a round, by turn.
pub struct Bookkeeping {
    pub device: Device,
    /// Tokens that there is room for in a slot.
    room: usize,
    turns: Buffer,
    sessions: Buffer,
    tokens: Buffer,
    pub proposals: Buffer,
    pub sampling: Buffer,
    adjustments: Option<Adjustments>,
}

/// Count and bias of each token, for each slot: what logits are changed by.
struct Adjustments {
    counts: Buffer,
    bias: Buffer,
    slots: usize,
    /// Tokens of the vocabulary.
    ids: usize,
}

impl Bookkeeping {
    /// For `slots` sequences of `room` tokens each.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn new(device: &Device, slots: usize, room: usize) -> Result<Bookkeeping> {
        Ok(Bookkeeping {
            device: device.clone(),
            room,
            turns: Turn::buffer(device)?,
            sessions: Buffer::storage(device, "sessions", (slots * size_of::<Session>()) as u64)?,
            tokens: Buffer::storage(device, "tokens", 4 * (slots as u64).saturating_mul(room as u64))?,
            proposals: PassRow::choices(device, "proposals")?,
            sampling: TurnSampling::buffer(device)?,
            adjustments: None,
        })
    }

    /// The buffers that rounds work on.
    pub fn round(&self) -> RoundBuffers<'_> {
        let Bookkeeping { turns, sessions, tokens, proposals, .. } = self;
        RoundBuffers { turns, sessions, tokens, proposals }
    }

    /// A [`Session`] for each slot.
    pub fn sessions(&self) -> &Buffer {
        &self.sessions
    }

    /// Index of the first token of slot `slot`.
    pub fn first_token(&self, slot: usize) -> usize {
        slot * self.room
    }

    /// Sets the session of slot `slot`.
    pub fn write_session(&self, slot: usize, session: Session) {
        self.sessions.write(&self.device, (slot * size_of::<Session>()) as u64, &[session]);
    }

    /// The session of slot `slot`. Waits for the device.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn read_session(&self, slot: usize) -> Result<Session> {
        Ok(self.sessions.read(&self.device, (slot * size_of::<Session>()) as u64, 1)?[0])
    }

    /// Sets the tokens of slot `slot` from position `first` on.
    pub fn write_tokens(&self, slot: usize, first: usize, tokens: &[u32]) {
        self.tokens.write(&self.device, 4 * (self.first_token(slot) + first) as u64, tokens);
    }

    /// Sets the turns of the next round.
    pub fn write_turns(&self, turns: &[Turn]) {
        self.turns.write(&self.device, 0, turns);
    }

    /// Sets the sampling parameters of the next round's turns.
    pub fn write_sampling(&self, sampling: &[TurnSampling]) {
        self.sampling.write(&self.device, 0, sampling);
    }

    /// Sets the proposals of a turn.
    pub fn write_proposals(&self, turn: usize, proposals: &[u32]) {
        self.proposals.write(&self.device, (4 * CHOICES * turn) as u64, proposals);
    }

    /// The first `count` proposals of a turn. Waits for the device.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn read_proposals(&self, turn: usize, count: usize) -> Result<Vec<u32>> {
        self.proposals.read(&self.device, (4 * CHOICES * turn) as u64, count)
    }

    /// For each slot, the count and the bias of each token, if any sequence changes logits.
    pub fn adjustments(&self) -> Option<[&Buffer; 2]> {
        self.adjustments.as_ref().map(|Adjustments { counts, bias, .. }| [counts, bias])
    }

    /// Makes room for counts and biases of `slots` slots of a vocabulary of `ids` tokens; true if buffers were replaced.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn reserve_adjustments(&mut self, slots: usize, ids: usize) -> Result<bool> {
        if self.adjustments.as_ref().is_some_and(|adjustments| adjustments.slots >= slots) {
            return Ok(false);
        }
        let room = |label| Buffer::storage(&self.device, label, 4 * (slots * ids) as u64);
        let grown = Adjustments { counts: room("token counts")?, bias: room("logit bias")?, slots, ids };
        if let Some(old) = &self.adjustments {
            grown.counts.copy_from(&self.device, &old.counts, 0, (4 * old.slots * old.ids) as u64);
            grown.bias.copy_from(&self.device, &old.bias, 0, (4 * old.slots * old.ids) as u64);
        }
        self.adjustments = Some(grown);
        Ok(true)
    }

    /// Sets the biases of slot `slot`, for which there is room.
    pub fn write_bias(&self, slot: usize, bias: &[f32]) {
        if let Some(Adjustments { bias: to, ids, .. }) = &self.adjustments {
            to.write(&self.device, 4 * (slot * ids) as u64, bias);
        }
    }

    /// Sets the counts of slot `slot`, for which there is room: `prompt`, and `answer` after it.
    pub fn write_counts(&self, slot: usize, prompt: &[u32], answer: &[u32]) {
        if let Some(Adjustments { counts, ids, .. }) = &self.adjustments {
            counts.write(&self.device, 4 * (slot * ids) as u64, &TokenCounts::of_text(prompt, answer, *ids));
        }
    }
}
