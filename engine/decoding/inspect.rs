//! State of a sequence on the device, for tools that study rounds one by one.

use super::sequence::{LastTurn, Sequence};
use crate::error::Result;
use crate::ops::Session;

/// Reads what a sequence has on the device, for which it waits.
pub trait Inspect {
    /// The session as the device has it, which [`Sequence::session`] follows; a round that runs ahead is part of it.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    fn device_session(&self) -> Result<Session>;

    /// The proposals of the last round, accepted or not: d1 .. dK; those of the newest round of the engine, if there was
    /// one since.
    ///
    /// # Errors
    ///
    /// As [`Inspect::device_session`].
    fn proposals(&self) -> Result<Vec<u32>>;

    /// The logits of the last round's verified rows, `[K + 1, vocab]`, if the engine has run no pass since.
    ///
    /// # Errors
    ///
    /// As [`Inspect::device_session`].
    fn logits(&self) -> Result<Vec<f32>>;
}

impl Inspect for Sequence {
    fn device_session(&self) -> Result<Session> {
        self.shared().rounds().book.read_session(self.slot.index)
    }

    fn proposals(&self) -> Result<Vec<u32>> {
        let LastTurn { turn, drafts, .. } = self.last_turn;
        self.shared().rounds().book.read_proposals(turn, drafts)
    }

    fn logits(&self) -> Result<Vec<f32>> {
        let LastTurn { drafts, first_output, .. } = self.last_turn;
        self.target().logits_of(first_output, drafts + 1)
    }
}
