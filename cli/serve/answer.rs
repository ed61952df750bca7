//! An answer being written: its prompt is read in pieces, so that others get their rounds in between, and it takes what the
//! rounds commit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pard::decoding::{Completion, Piece, Sequence};
use pard::text::ChatTokenizer;
use pard::{Error, Result};
use tokio::sync::mpsc::error::TrySendError;

use super::fault::Fault;
use super::job::{Ending, Event, Job, Reuse, Written};
use super::kept::CacheName;
use super::metrics::Metrics;
use super::session::{Session, shared};

/// Target duration of a piece of a prompt, for which the other answers wait.
const PIECE: Duration = Duration::from_millis(250);
/// Tokens of a piece at first, at least and at most.
const FIRST_PIECE: usize = 64;
const PIECES: std::ops::RangeInclusive<usize> = 32..=1024;

/// An answer that has a session.
pub struct Answer {
    job: Job,
    session: Session,
    completion: Completion,
    /// Tokens of the prompt that the sequence was given.
    read: usize,
    reused: usize,
    /// Time that reading took.
    prefill: Duration,
    accepted: usize,
    proposed: usize,
    /// Events that could not be sent yet.
    outbox: VecDeque<Event>,
    /// The event that is sent last.
    ending: Option<Event>,
    full_since: Option<Instant>,
    begun: Instant,
    has_written: bool,
    is_ready: bool,
}

/// Result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It went on.
    Worked,
    /// It is to have a round.
    Ready,
    /// It waits for its reader.
    Rested,
    /// It is complete, and its end has room to be sent.
    Completed,
    /// Its reader is gone, or too slow.
    Abandoned,
}

impl Answer {
    /// Stands ready to read the prompt of `job`.
    ///
    /// # Errors
    ///
    /// Those of [`pard::Sequence::set_sampling`].
    pub fn begin(job: Job, mut session: Session, text: &ChatTokenizer) -> Result<Answer, Box<(Job, Error)>> {
        if let Err(error) = session.sequence.set_sampling(job.sampling.clone()) {
            return Err(Box::new((job, error)));
        }
        let reused = match job.reuse {
            Reuse::Allowed => shared(session.sequence.tokens(), &job.prompt[..job.prompt.len().saturating_sub(1)]),
            Reuse::Never => 0,
        };
        let completion =
            Completion::new(text, job.limits.clone(), job.prompt.len(), session.sequence.options().context);
        Ok(Answer {
            completion,
            read: 0,
            reused,
            prefill: Duration::ZERO,
            accepted: 0,
            proposed: 0,
            outbox: VecDeque::from([Event::Begun]),
            ending: None,
            full_since: None,
            begun: Instant::now(),
            has_written: false,
            is_ready: false,
            job,
            session,
        })
    }

    /// Reads a piece of the prompt, whose length adapts to `piece`, or says what is to be done. A reader may keep the answer
    /// waiting for `patience`.
    ///
    /// # Errors
    ///
    /// Those of [`Sequence::resume`].
    pub fn step(&mut self, piece: &mut PieceLength, patience: Duration, metrics: &Metrics) -> Result<Step> {
        self.is_ready = false;
        if self.job.events.is_closed() {
            return Ok(Step::Abandoned);
        }
        if !self.send() || self.job.events.capacity() == 0 {
            let since = *self.full_since.get_or_insert_with(Instant::now);
            return Ok(if since.elapsed() < patience { Step::Rested } else { Step::Abandoned });
        }
        self.full_since = None;
        if self.read < self.job.prompt.len() {
            self.read_piece(piece)?;
        } else if self.completion.finish_reason().is_none() {
            // What keeps one answer from going on must not end the others.
            self.session.sequence.check_round()?;
            self.is_ready = true;
            return Ok(Step::Ready);
        }
        Ok(self.conclude(metrics))
    }

    /// Returns `true` if its last step returned [`Step::Ready`].
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// The sequence that writes it.
    pub fn sequence(&mut self) -> &mut Sequence {
        &mut self.session.sequence
    }

    /// Returns [`Step::Completed`] if all is written and the last event has room to be sent.
    fn conclude(&mut self, metrics: &Metrics) -> Step {
        if self.ending.is_some() && self.send() && self.job.events.capacity() > 0 {
            let statistics = self.session.sequence.statistics();
            metrics.answered(self.begun - self.job.queued, self.begun.elapsed(), statistics);
            return Step::Completed;
        }
        Step::Worked
    }

    fn read_piece(&mut self, piece: &mut PieceLength) -> Result<()> {
        let (sequence, prompt) = (&mut self.session.sequence, &self.job.prompt);
        let known = if self.read == 0 { self.reused } else { self.read };
        let end = prompt.len().min(known + piece.tokens + 1);
        let begin = Instant::now();
        if self.read == 0 && self.job.reuse == Reuse::Never {
            sequence.start(&prompt[..end])?;
        } else {
            sequence.resume(&prompt[..end])?;
        }
        if self.read == 0 {
            self.reused = sequence.statistics().reused_tokens;
        }
        self.prefill += begin.elapsed();
        piece.took(end - known, begin.elapsed());
        self.read = end;
        Ok(())
    }

    /// Takes what the last round of its sequence committed.
    pub fn take_round(&mut self, metrics: &Metrics) -> Step {
        let Piece { tokens, texts, logprobs, round, .. } = self.completion.take_round(&mut self.session.sequence);
        let mut written = Vec::with_capacity(tokens.len());
        let mut rest = String::new();
        for (position, (&id, text)) in tokens.iter().zip(texts).enumerate() {
            let accepted = position < round.accepted;
            self.accepted += usize::from(accepted);
            if self.completion.is_stop_token(id) {
                rest = text;
            } else {
                written.push(Written { id, text, accepted, logprobs: logprobs.get(position).cloned() });
            }
        }
        self.proposed += round.proposed;
        metrics.round(round, tokens.len());
        if !std::mem::replace(&mut self.has_written, true) {
            metrics.first_token(self.job.queued.elapsed());
        }
        let index = self.job.index;
        if !written.is_empty() {
            self.outbox.push_back(Event::Round { index, tokens: written, proposed: round.proposed });
        }
        if let Some(finish) = self.completion.finish_reason() {
            let tokens = self.completion.output().len();
            let mut statistics = self.session.sequence.statistics().clone();
            (statistics.prefill, statistics.reused_tokens) = (self.prefill, self.reused);
            metrics.read(self.job.prompt.len(), self.reused);
            let ending = Ending {
                finish,
                stop: self.completion.stop_string().map(str::to_owned),
                rest,
                tokens,
                reused: self.reused,
                accepted: self.accepted,
                rejected: self.proposed.saturating_sub(self.accepted),
                statistics,
                waited: self.begun - self.job.queued,
            };
            self.ending = Some(Event::Ended { index, ending });
        }
        self.conclude(metrics)
    }

    /// Sends what can be sent, and says whether that was all.
    fn send(&mut self) -> bool {
        while let Some(event) = self.outbox.pop_front() {
            match self.job.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    return false;
                }
                // The next step finds that it is closed.
                Err(TrySendError::Closed(_)) => return true,
            }
        }
        true
    }

    /// Ends it for a reason that its reader is told.
    pub fn fail(self, fault: Fault) {
        let _ = self.job.events.try_send(Event::Failed(fault));
    }

    /// Time since its beginning.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The name under which its conversation's caches are kept, if they are.
    pub fn cache(&self) -> Option<&CacheName> {
        self.job.cache.as_ref()
    }

    /// Sends the end of a complete answer, and gives the session back.
    pub fn end(self) -> Session {
        if let Some(ending) = self.ending {
            let _ = self.job.events.try_send(ending);
        }
        self.session
    }
}

/// Number of prompt tokens read in one step: as many as this device reads in the time that others may be kept waiting.
pub struct PieceLength {
    tokens: usize,
}

impl PieceLength {
    pub fn new() -> PieceLength {
        PieceLength { tokens: FIRST_PIECE }
    }

    fn took(&mut self, tokens: usize, time: Duration) {
        if time > 2 * PIECE {
            self.tokens = (self.tokens / 2).max(*PIECES.start());
        } else if time < PIECE / 2 && tokens >= self.tokens {
            self.tokens = (self.tokens * 2).min(*PIECES.end());
        }
    }
}
