//! Answers that wait for the engine's thread, first come, first served, and no more than may; and whether the engine
//! can answer at all.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use super::fault::Fault;
use super::job::Job;

/// State of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Loading,
    Ready,
    /// The device was lost, for this reason.
    Lost(String),
}

/// The line of answers in front of the engine.
pub struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    bound: usize,
    parallel: usize,
}

struct State {
    jobs: VecDeque<Job>,
    phase: Phase,
    /// No more requests are taken.
    draining: bool,
    /// No more answers are written.
    ended: bool,
    /// Answers that are being written.
    busy: usize,
    /// Usual duration of an answer: a moving average.
    usual: Duration,
}

impl Queue {
    /// A queue of `bound` answers beside the `parallel` that are being written.
    pub fn new(bound: usize, parallel: usize) -> Queue {
        let state = State {
            jobs: VecDeque::new(),
            phase: Phase::Loading,
            draining: false,
            ended: false,
            busy: 0,
            usual: Duration::from_secs(5),
        };
        Queue { state: Mutex::new(state), arrived: Condvar::new(), bound, parallel }
    }

    /// Lets `jobs` of one request wait together.
    ///
    /// # Errors
    ///
    /// 429 if too many wait, 503 if the engine cannot answer.
    pub fn push(&self, jobs: Vec<Job>) -> Result<(), Fault> {
        let mut state = self.state();
        self.check(&mut state)?;
        state.jobs.extend(jobs);
        drop(state);
        self.arrived.notify_all();
        Ok(())
    }

    /// Checks that a request would be accepted now, before it costs anything.
    ///
    /// # Errors
    ///
    /// Those of [`Queue::push`].
    pub fn check_room(&self) -> Result<(), Fault> {
        self.check(&mut self.state())
    }

    fn check(&self, state: &mut State) -> Result<(), Fault> {
        if state.draining || state.ended {
            return Err(Fault::unavailable("the server is shutting down"));
        }
        match &state.phase {
            Phase::Ready => {}
            Phase::Loading => return Err(Fault::unavailable("the model is being loaded")),
            Phase::Lost(_) => return Err(Fault::unavailable("the GPU was lost; the model is being loaded again")),
        }
        state.forget_abandoned();
        // Answers that can begin at once do not wait.
        let waiting = state.jobs.len().saturating_sub(self.parallel.saturating_sub(state.busy));
        let free = state.busy + state.jobs.len() < self.parallel;
        if !free && waiting >= self.bound {
            let turns = (waiting + 1).div_ceil(self.parallel) as u32;
            let seconds = (state.usual * turns).as_secs_f64().ceil().clamp(1.0, 60.0);
            let message = format!("{waiting} answers wait already; try again later");
            let fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, message);
            return Err(fault.with_code("queue_full").retry_after(seconds as u64));
        }
        Ok(())
    }

    /// The next answer to write, if there is one. Waits for one up to `patience`.
    pub fn next(&self, patience: Duration) -> Option<Job> {
        let mut state = self.state();
        let deadline = Instant::now() + patience;
        loop {
            state.forget_abandoned();
            if let Some(job) = state.jobs.pop_front() {
                state.busy += 1;
                return Some(job);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                return None;
            }
            state = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets `job` wait again, before all others.
    pub fn put_back(&self, job: Job) {
        let mut state = self.state();
        state.busy -= 1;
        state.jobs.push_front(job);
    }

    /// An answer came to its end, `took` after it had begun if it was completed.
    pub fn done(&self, took: Option<Duration>) {
        let mut state = self.state();
        state.busy -= 1;
        if let Some(took) = took {
            state.usual = (3 * state.usual + took) / 4;
        }
    }

    pub fn set_phase(&self, phase: Phase) {
        self.state().phase = phase;
    }

    pub fn phase(&self) -> Phase {
        self.state().phase.clone()
    }

    pub fn is_draining(&self) -> bool {
        self.state().draining
    }

    /// Answers that wait, and answers that are being written.
    pub fn depth(&self) -> (usize, usize) {
        let mut state = self.state();
        state.forget_abandoned();
        (state.jobs.len(), state.busy)
    }

    /// Takes no more requests; those that were taken are answered.
    pub fn drain(&self) {
        self.state().draining = true;
    }

    /// Gives up what still waits or is being written, and ends the engine's thread.
    pub fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.jobs.clear();
        drop(state);
        self.arrived.notify_all();
    }

    pub fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// Waits for `time`, or until the queue has ended; says whether it has.
    pub fn wait_for_end(&self, time: Duration) -> bool {
        let waited = self.arrived.wait_timeout_while(self.state(), time, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops what nobody waits for any more.
    fn forget_abandoned(&mut self) {
        self.jobs.retain(|job| !job.events.is_closed());
    }
}
