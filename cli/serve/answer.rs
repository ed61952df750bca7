//! An answer being written: its prompt is read in pieces, so that others get their rounds in between, and it takes what the
//! rounds commit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pard::decoding::{Completion, FinishReason, Piece, Sequence, TokenLogprobs};
use pard::text::ChatTokenizer;
use pard::{Error, Result};
use tokio::sync::mpsc::error::TrySendError;

use super::fault::Fault;
use super::job::{CacheName, Ending, Event, Job, Reuse, Written};
use super::metrics::Metrics;
use super::session::{Session, shared};

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
    /// Log-probabilities of the prompt's tokens behind the first, as far as it was read, if they are wanted.
    scores: Vec<TokenLogprobs>,
    accepted: usize,
    proposed: usize,
    /// Events that could not be sent yet.
    outbox: VecDeque<Event>,
    /// The event that is sent last.
    ending: Option<Event>,
    full_since: Option<Instant>,
    begun: Instant,
    has_written: bool,
    turn: Turn,
}

/// Part of an answer in the present turn of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// None: it waits for its reader, or has ended.
    Rests,
    /// Its prompt may be read.
    Reads,
    /// It is to have a round.
    Writes,
}

/// Result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It went on, or may do so in this turn.
    Worked,
    /// It waits for its reader, or for others.
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
    /// Those of [`Sequence::set_sampling`] and [`Sequence::hold_back`].
    pub fn begin(job: Job, mut session: Session, text: &ChatTokenizer) -> Result<Answer, Box<(Job, Error)>> {
        let completion =
            Completion::new(text, job.limits.clone(), job.prompt.len(), session.sequence.options().context);
        let chosen = session.sequence.set_sampling(job.sampling.clone());
        if let Err(error) = chosen.and_then(|()| completion.hold_end(&mut session.sequence)) {
            return Err(Box::new((job, error)));
        }
        let reused = match job.reuse {
            Reuse::Allowed => shared(session.sequence.tokens(), &job.prompt[..job.prompt.len().saturating_sub(1)]),
            Reuse::Never => 0,
        };
        Ok(Answer {
            completion,
            read: 0,
            reused,
            prefill: Duration::ZERO,
            scores: Vec::new(),
            accepted: 0,
            proposed: 0,
            outbox: VecDeque::from([Event::Begun]),
            ending: None,
            full_since: None,
            begun: Instant::now(),
            has_written: false,
            turn: Turn::Rests,
            job,
            session,
        })
    }

    /// Decides on its part in the turn that begins. A reader may keep the answer waiting for `patience`.
    ///
    /// # Errors
    ///
    /// Those of [`Sequence::check_round`].
    pub fn step(&mut self, patience: Duration, metrics: &Metrics) -> Result<Step> {
        self.turn = Turn::Rests;
        if self.job.events.is_closed() {
            return Ok(Step::Abandoned);
        }
        if !self.send() || self.job.events.capacity() == 0 {
            let since = *self.full_since.get_or_insert_with(Instant::now);
            return Ok(if since.elapsed() < patience { Step::Rested } else { Step::Abandoned });
        }
        self.full_since = None;
        if self.read < self.job.prompt.len() {
            self.turn = Turn::Reads;
        } else if self.completion.finish_reason().is_none() {
            self.stand_ready()?;
        }
        Ok(self.conclude(metrics))
    }

    /// Returns `true` if it is to have a round in this turn.
    pub fn is_ready(&self) -> bool {
        self.turn == Turn::Writes
    }

    fn stand_ready(&mut self) -> Result<()> {
        // What keeps one answer from going on must not end the others.
        self.session.sequence.check_round()?;
        self.turn = Turn::Writes;
        Ok(())
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

    /// Tokens of the prompt that its sequence was given, or has from earlier answers.
    fn known(&self) -> usize {
        if self.read == 0 { self.reused } else { self.read }
    }

    /// Tokens of the prompt that may be read in this turn.
    pub fn unread(&self) -> usize {
        if self.turn == Turn::Reads { self.job.prompt.len() - self.known() } else { 0 }
    }

    /// Reads the next `tokens` tokens of the prompt, if any. With the last of them it is to have a round.
    ///
    /// # Errors
    ///
    /// Those of [`Sequence::resume`] and [`Sequence::check_round`].
    pub fn read(&mut self, tokens: usize, metrics: &Metrics) -> Result<Step> {
        if tokens == 0 {
            return Ok(Step::Rested);
        }
        let end = self.known() + tokens;
        let (sequence, prompt) = (&mut self.session.sequence, &self.job.prompt);
        let begin = Instant::now();
        let is_new = self.read == 0 && self.job.reuse == Reuse::Never;
        match self.job.echo.as_ref().and_then(|echo| echo.top) {
            Some(top) if is_new => self.scores = sequence.score(&prompt[..end], top)?,
            Some(top) => self.scores.extend(sequence.resume_scored(&prompt[..end], top)?),
            None if is_new => sequence.start(&prompt[..end])?,
            None => sequence.resume(&prompt[..end])?,
        }
        if self.read == 0 {
            self.reused = sequence.statistics().reused_tokens;
        }
        self.prefill += begin.elapsed();
        self.read = end;
        if self.read == self.job.prompt.len() {
            self.repeat_prompt();
            match self.completion.finish_reason() {
                None => self.stand_ready()?,
                // Nothing is to be written.
                Some(finish) => self.finish(finish, String::new(), None, metrics),
            }
        }
        Ok(Step::Worked)
    }

    /// Sends the prompt's tokens, if they are wanted.
    fn repeat_prompt(&mut self) {
        let Some(echo) = &self.job.echo else { return };
        let scores = std::mem::take(&mut self.scores).into_iter().map(Some);
        let scores = std::iter::once(None).chain(scores).chain(std::iter::repeat(None));
        let tokens = self.job.prompt.iter().zip(&*echo.texts).zip(scores).map(|((&id, text), logprobs)| Written {
            id,
            text: text.clone(),
            accepted: false,
            logprobs,
        });
        self.outbox.push_back(Event::Round { index: self.job.index, tokens: tokens.collect(), proposed: 0 });
    }

    /// Takes what the last round of its sequence committed.
    pub fn take_round(&mut self, metrics: &Metrics) -> Step {
        let Piece { tokens, texts, logprobs, round, .. } = self.completion.take_round(&mut self.session.sequence);
        let mut written = Vec::with_capacity(tokens.len());
        let (mut rest, mut last) = (String::new(), None);
        for (position, (&id, text)) in tokens.iter().zip(texts).enumerate() {
            let accepted = position < round.accepted;
            self.accepted += usize::from(accepted);
            let logprobs = logprobs.get(position).cloned();
            if self.completion.is_stop_token(id) {
                rest = text;
                last = Some(Box::new(Written { id, text: String::new(), accepted, logprobs }));
            } else {
                written.push(Written { id, text, accepted, logprobs });
            }
        }
        self.proposed += round.proposed;
        metrics.round(round, tokens.len());
        if !std::mem::replace(&mut self.has_written, true) {
            metrics.first_token(self.job.queued.elapsed());
        }
        if !written.is_empty() {
            self.outbox.push_back(Event::Round { index: self.job.index, tokens: written, proposed: round.proposed });
        }
        if let Some(finish) = self.completion.finish_reason() {
            self.finish(finish, rest, last, metrics);
        }
        self.conclude(metrics)
    }

    /// Ends it, with the text `rest` that was held back and the token `last` that ended it, if one did.
    fn finish(&mut self, finish: FinishReason, rest: String, last: Option<Box<Written>>, metrics: &Metrics) {
        let mut statistics = self.session.sequence.statistics().clone();
        (statistics.prefill, statistics.reused_tokens) = (self.prefill, self.reused);
        metrics.read(self.job.prompt.len(), self.reused);
        let ending = Ending {
            finish,
            stop: self.completion.stop_string().map(str::to_owned),
            rest,
            last,
            tokens: self.completion.output().len(),
            reused: self.reused,
            accepted: self.accepted,
            rejected: self.proposed.saturating_sub(self.accepted),
            statistics,
            waited: self.begun - self.job.queued,
        };
        self.ending = Some(Event::Ended { index: self.job.index, ending });
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
