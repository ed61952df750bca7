//! Sequences that stay between answers with what their caches hold.

use pard::Result;
use pard::decoding::{AcceptanceRule, Engine, Method, Sequence, SequenceOptions};

use super::job::{Job, Proposer, Reuse};
use crate::load::Models;
use crate::output::Verbosity;

/// A sequence, which answers one request after the other.
pub struct Session {
    pub sequence: Sequence,
    proposer: Proposer,
}

/// The sessions that have nothing to do, the one that was used last at the end.
pub struct Idle {
    sessions: Vec<Session>,
    engine: Engine,
    options: SequenceOptions,
    talk: Verbosity,
}

impl Idle {
    /// None yet. Those that are made are of `engine` and work as `options` say, apart from what each answer chooses for
    /// itself.
    pub fn new(engine: Engine, options: SequenceOptions, talk: Verbosity) -> Idle {
        Idle { sessions: Vec::new(), engine, options, talk }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// The sessions of `proposer`, the one that was used last first.
    pub fn of(&self, proposer: Proposer) -> impl Iterator<Item = &Session> {
        self.sessions.iter().rev().filter(move |session| session.proposer == proposer)
    }

    /// Takes a session back.
    pub fn put(&mut self, session: Session) {
        self.sessions.push(session);
    }

    /// Gives the session that was used last.
    pub fn pop(&mut self) -> Option<Session> {
        self.sessions.pop()
    }

    /// A new session.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::add`] and [`Models::tell_costs`].
    pub fn make(&self, models: &Models, proposer: Proposer) -> Result<Session> {
        let mut options = self.options.clone().method(proposer.method).drafts(proposer.drafts);
        if matches!(proposer.method, Method::Ar | Method::Ngram) {
            // Only what a model proposes has chances that it could be accepted by.
            options.acceptance = AcceptanceRule::Noise;
        }
        let mut sequence = self.engine.add(options)?;
        if sequence.options().method != Method::Ar {
            // The gain from its proposals is weighed against passes shared with others.
            models.tell_costs(&mut sequence, self.talk)?;
        }
        Ok(Session { sequence, proposer })
    }

    /// The session for `job`: the one that holds most of its prompt; a new one where that would cost another conversation
    /// its caches and one more may be made; else the one that was not used for longest.
    ///
    /// # Errors
    ///
    /// Those of [`Idle::make`].
    pub fn take(&mut self, models: &Models, job: &Job, may_grow: bool) -> Result<Session> {
        let fitting = self.sessions.iter().enumerate().filter(|(_, session)| session.proposer == job.proposer);
        let best = fitting.map(|(index, session)| (session.shared(job), index)).max_by_key(|&(shared, index)| {
            // Among those that hold nothing of it, the oldest.
            (shared, std::cmp::Reverse(index))
        });
        if let Some((shared, index)) = best
            && (!may_grow || 2 * shared >= self.sessions[index].sequence.tokens().len())
        {
            return Ok(self.sessions.remove(index));
        }
        if !may_grow && !self.sessions.is_empty() {
            // It proposes otherwise; its memory goes before the new one's is asked for.
            self.sessions.remove(0);
        }
        self.make(models, job.proposer)
    }
}

impl Session {
    /// Number of tokens of the prompt of `job` that the caches hold.
    fn shared(&self, job: &Job) -> usize {
        match job.reuse {
            Reuse::Allowed => shared(self.sequence.tokens(), &job.prompt),
            Reuse::Never => 0,
        }
    }
}

/// Length of the common prefix of two sequences.
pub fn shared(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
