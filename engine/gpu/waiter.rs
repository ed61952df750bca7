//! A thread that waits for the device in the place of tasks, whose own threads may not.

use std::sync::mpsc::{Sender, channel};

use crate::error::{Error, Result};

/// Called with the outcome of the wait.
type Done = Box<dyn FnOnce(std::result::Result<(), String>) + Send>;

/// The thread. It ends with the device.
pub struct Waiter {
    jobs: Sender<(Option<wgpu::SubmissionIndex>, Done)>,
}

impl Waiter {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`].
    pub fn start(device: &wgpu::Device) -> Result<Waiter> {
        let (jobs, queue) = channel::<(Option<wgpu::SubmissionIndex>, Done)>();
        let device = device.clone();
        let wait = move || {
            for (submission_index, done) in queue {
                // The callbacks of all that is done run in here.
                let waited = device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
                done(waited.map(drop).map_err(|error| error.to_string()));
            }
        };
        let thread = std::thread::Builder::new().name("pard device".to_owned()).spawn(wait);
        thread.map(|_| Waiter { jobs }).map_err(|source| Error::Thread { source })
    }

    /// Calls `done` once `submission`, or all work there is, is done.
    pub fn push(
        &self,
        submission: Option<wgpu::SubmissionIndex>,
        done: impl FnOnce(std::result::Result<(), String>) + Send + 'static,
    ) {
        if let Err(refused) = self.jobs.send((submission, Box::new(done))) {
            let (_, done) = refused.0;
            done(Err("the thread that waits for the device has ended".to_owned()));
        }
    }
}
