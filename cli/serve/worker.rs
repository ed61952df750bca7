//! The thread that owns the device: it loads the models, runs the rounds of all answers, and begins again where the device
//! was lost.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pard::decoding::{Engine, EngineOptions, Sequence};
use pard::{Error, Result};

use super::answer::{Answer, Step};
use super::arguments::ServeArguments;
use super::fault::Fault;
use super::job::{Event, Job, Proposer};
use super::kept::KeptCaches;
use super::metrics::Metrics;
use super::queue::{Phase, Queue};
use super::reading::PromptBudget;
use super::session::Idle;
use crate::load::{LoadedFiles, Models};
use crate::output::{self, Verbosity};

/// Maximum sleep of a worker without work; any event wakes it.
const SLEEP: Duration = Duration::from_secs(1);
/// Delay before the next check if all answers wait for their readers.
const REST: Duration = Duration::from_millis(5);
/// The shortest and the longest time between two attempts to get the device back.
const RETRIES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(30)];

/// Resources of the engine's thread.
pub struct Worker {
    pub arguments: ServeArguments,
    pub proposer: Proposer,
    pub queue: Arc<Queue>,
    pub metrics: Arc<Metrics>,
    pub kept: Option<KeptCaches>,
    pub talk: Verbosity,
}

impl Worker {
    /// Loads the models and writes answers until the queue has ended.
    ///
    /// # Errors
    ///
    /// Why the models cannot be loaded, the first time.
    pub fn run(mut self, prepared: LoadedFiles, loaded: impl FnOnce()) -> Result<()> {
        let mut backend = Backend::load(&self, prepared)?;
        backend.restore(&self)?;
        self.queue.set_phase(Phase::Ready);
        loaded();
        while let Err(reason) = self.serve(&mut backend) {
            self.queue.set_phase(Phase::Lost(reason.clone()));
            output::note(&format!("{reason}; loading the models again"));
            for answer in backend.active.drain(..) {
                answer.fail(Fault::unavailable("the GPU was lost; the model is being loaded again"));
                self.queue.done(None);
            }
            // Its memory goes before the new one's is asked for.
            drop(backend);
            backend = match self.load_again() {
                Some(backend) => backend,
                None => return Ok(()),
            };
            self.metrics.rebuilt();
            self.queue.set_phase(Phase::Ready);
            self.talk.note("ready again");
        }
        for answer in backend.active {
            answer.fail(Fault::unavailable("the server was shut down"));
        }
        if let Some(kept) = &self.kept {
            kept.keep_all(backend.idle.of(self.proposer));
        }
        Ok(())
    }

    /// Writes answers until the queue has ended.
    ///
    /// # Errors
    ///
    /// Why that is not possible on this device any more.
    fn serve(&mut self, backend: &mut Backend) -> Result<(), String> {
        // A driver that fails may well take wgpu into a panic.
        let served = std::panic::catch_unwind(AssertUnwindSafe(|| backend.serve(self)));
        match served {
            Ok(served) => served.map_err(|error| error.to_string()),
            Err(_) => Err("the engine panicked".to_owned()),
        }
    }

    /// Tries until it works; nothing if the queue has ended meanwhile.
    fn load_again(&self) -> Option<Backend> {
        let mut pause = RETRIES[0];
        while !self.queue.wait_for_end(pause) {
            let load = || {
                let prepared = LoadedFiles::open(&self.arguments.decoding, Verbosity::Quiet)?;
                anyhow::Ok(Backend::load(self, prepared)?)
            };
            match std::panic::catch_unwind(AssertUnwindSafe(load)) {
                Ok(Ok(backend)) => return Some(backend),
                Ok(Err(error)) => output::note(&format!("error: {error}")),
                Err(_) => {}
            }
            pause = (2 * pause).min(RETRIES[1]);
        }
        None
    }
}

/// The models on a device, and the answers at work.
struct Backend {
    models: Models,
    engine: Engine,
    idle: Idle,
    /// In the order of their beginnings.
    active: Vec<Answer>,
    /// Sessions there may be.
    capacity: usize,
    budget: PromptBudget,
}

impl Backend {
    fn load(worker: &Worker, prepared: LoadedFiles) -> Result<Backend> {
        let decoding = &worker.arguments.decoding;
        let device = decoding.models.device.open()?;
        let (method, context) = (prepared.method, prepared.context);
        let models = prepared.files.upload(&device, &decoding.models, context, worker.talk)?;
        let capacity = worker.arguments.parallel.into();
        let options = EngineOptions::default().context(context).sequences(capacity);
        let engine = Engine::new(&models.target, models.draft.as_ref(), options)?;
        let mut idle = Idle::new(engine.clone(), decoding.options(method, context), worker.talk);
        // The first one shows whether there is room for its caches, and measures what passes cost.
        let first = idle.make(&models, worker.proposer)?;
        idle.put(first);
        Ok(Backend { models, engine, idle, active: Vec::new(), capacity, budget: PromptBudget::new() })
    }

    /// Takes up the conversations of an earlier run.
    fn restore(&mut self, worker: &Worker) -> Result<()> {
        let Some(kept) = &worker.kept else { return Ok(()) };
        let first = std::cell::Cell::new(self.idle.pop());
        let make = || first.take().map_or_else(|| self.idle.make(&self.models, worker.proposer), Ok);
        let mut sessions = kept.restore_all(self.capacity, make)?;
        sessions.extend(first.take());
        sessions.into_iter().rev().for_each(|session| self.idle.put(session));
        Ok(())
    }

    fn serve(&mut self, worker: &mut Worker) -> Result<()> {
        loop {
            while self.active.len() < self.capacity {
                let patience = if self.active.is_empty() { SLEEP } else { Duration::ZERO };
                let Some(job) = worker.queue.next(patience) else { break };
                self.begin(job, worker)?;
            }
            if worker.queue.has_ended() {
                return Ok(());
            }
            let mut worked = self.active.is_empty();
            let patience = worker.arguments.write_timeout;
            worked |= self.each(worker, |answer, metrics| answer.step(patience, metrics))?;
            self.read(worker)?;
            self.round(worker)?;
            self.each(worker, |answer, metrics| match answer.is_ready() {
                true => Ok(answer.take_round(metrics)),
                false => Ok(Step::Rested),
            })?;
            worker.metrics.sessions(self.active.len(), self.idle.len());
            if !worked {
                std::thread::sleep(REST);
            }
        }
    }

    /// Gives `job` a session.
    fn begin(&mut self, job: Job, worker: &Worker) -> Result<()> {
        let may_grow = self.active.len() + self.idle.len() < self.capacity;
        let mut session = match self.idle.take(&self.models, &job, may_grow) {
            Ok(session) => session,
            Err(error @ Error::DeviceLost { .. }) => {
                worker.queue.put_back(job);
                return Err(error);
            }
            Err(Error::OutOfMemory { .. } | Error::Limit { .. }) if !self.active.is_empty() => {
                // As many as there are is as many as there can be.
                self.capacity = self.active.len();
                worker.talk.note(&format!("the GPU has room for {} answers at once, not more", self.capacity));
                worker.queue.put_back(job);
                return Ok(());
            }
            Err(error) => {
                let _ = job.events.try_send(Event::Failed(Fault::of(&error)));
                worker.queue.done(None);
                return Ok(());
            }
        };
        if let (Some(kept), Some(name)) = (&worker.kept, &job.cache) {
            kept.restore(name, &mut session, &job.prompt)?;
        }
        match Answer::begin(job, session, &self.models.target.text) {
            Ok(answer) => self.active.push(answer),
            Err(refused) => {
                let (job, error) = *refused;
                let _ = job.events.try_send(Event::Failed(Fault::of(&error)));
                worker.queue.done(None);
            }
        }
        Ok(())
    }

    /// Lets every answer take a step, and says whether one did anything. One that fails ends, and with it its session;
    /// a lost device ends all.
    fn each(&mut self, worker: &Worker, mut step: impl FnMut(&mut Answer, &Metrics) -> Result<Step>) -> Result<bool> {
        let mut worked = false;
        let mut index = 0;
        while index < self.active.len() {
            match step(&mut self.active[index], &worker.metrics) {
                Ok(Step::Rested) => index += 1,
                Ok(Step::Worked) => {
                    worked = true;
                    index += 1;
                }
                Ok(step @ (Step::Completed | Step::Abandoned)) => {
                    worked = true;
                    // Its place is free before its client knows that it is complete, and may ask again.
                    let answer = self.active.remove(index);
                    worker.queue.done((step == Step::Completed).then_some(answer.age()));
                    let cache = answer.cache().filter(|_| step == Step::Completed).cloned();
                    let session = answer.end();
                    if let (Some(kept), Some(name)) = (&worker.kept, cache) {
                        kept.keep(&name, &session)?;
                    }
                    self.idle.put(session);
                }
                Err(error @ Error::DeviceLost { .. }) => return Err(error),
                Err(error) => {
                    self.active.remove(index).fail(Fault::of(&error));
                    worker.queue.done(None);
                }
            }
        }
        Ok(worked)
    }

    /// Reads prompts for the time of a turn.
    fn read(&mut self, worker: &Worker) -> Result<()> {
        let unread: Vec<usize> = self.active.iter().map(Answer::unread).collect();
        let pieces = self.budget.pieces(&unread);
        let tokens: usize = pieces.iter().sum();
        if tokens > 0 {
            let begin = Instant::now();
            let mut pieces = pieces.into_iter();
            self.each(worker, |answer, metrics| answer.read(pieces.next().unwrap_or(0), metrics))?;
            self.budget.took(tokens, begin.elapsed());
        }
        Ok(())
    }

    /// Runs a round of each answer that is ready for one. If that fails, they all end; a lost device ends the others, too.
    fn round(&mut self, worker: &mut Worker) -> Result<()> {
        let ready = self.active.iter_mut().filter(|answer| answer.is_ready());
        let mut sequences: Vec<&mut Sequence> = ready.map(Answer::sequence).collect();
        let done = self.engine.step(&mut sequences);
        match done {
            Ok(passes) => passes.into_iter().for_each(|rows| worker.metrics.pass(rows)),
            Err(error @ Error::DeviceLost { .. }) => return Err(error),
            Err(error) => {
                for answer in self.active.extract_if(.., |answer| answer.is_ready()) {
                    answer.fail(Fault::of(&error));
                    worker.queue.done(None);
                }
            }
        }
        Ok(())
    }
}
