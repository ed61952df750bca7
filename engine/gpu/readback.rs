//! Results on their way from the device to the host. A result can be waited for in two ways, by the calling thread
//! ([`Readback::read`]) or by an asynchronous task ([`Readback::poll_read`]); both ask for the memory and take it alike.

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::context::GpuContext;
use super::lock::lock;
use crate::error::{Error, Result};

/// Host-visible memory that results are copied to.
pub struct Readback {
    raw: wgpu::Buffer,
    /// The submit that last copied something here.
    submission: Mutex<Option<wgpu::SubmissionIndex>>,
    mapping: Arc<Mutex<Mapping>>,
}

/// State of the request to see a readback's memory.
#[derive(Default)]
struct Mapping {
    is_requested: bool,
    outcome: Option<std::result::Result<(), String>>,
    /// Tasks that wait for the outcome.
    wakers: Vec<Waker>,
}

impl Mapping {
    fn end(&mut self, outcome: std::result::Result<(), String>) {
        self.outcome.get_or_insert(outcome);
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

/// Time for which a GPU is polled before this thread goes to sleep: waking up costs more than the rest of a short round.
/// A software adapter needs the cores itself.
const SPIN: Duration = Duration::from_millis(2);

impl Readback {
    /// Room for `bytes` bytes.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn new(device: &GpuContext, bytes: u64) -> Result<Readback> {
        let raw = device.raw().create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: bytes.next_multiple_of(16).max(16),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        device.check("allocating a readback buffer")?;
        Ok(Readback { raw, submission: Mutex::default(), mapping: Arc::default() })
    }

    /// Waits for the submit that copies to this memory, not for later ones, and returns the first `count` values.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn read<T: bytemuck::AnyBitPattern>(&self, device: &GpuContext, count: usize) -> Result<Vec<T>> {
        let begin = Instant::now();
        let spins = !device.is_software();
        self.request();
        // Whichever thread polls the device runs all callbacks, so ours may still be on its way in another one.
        while self.mapping().outcome.is_none() {
            match spins && begin.elapsed() < SPIN {
                true => device.poll()?,
                false => device.wait_for(self.submission())?,
            }
        }
        device.profile_host("wait", begin);
        self.take(device, count)
    }

    /// Returns the first `count` values once the submit that copies to this memory is done; until then, `context` is woken
    /// when that may be.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn poll_read<T: bytemuck::AnyBitPattern>(
        &self,
        device: &GpuContext,
        count: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<Vec<T>>> {
        self.request();
        {
            let mut mapping = self.mapping();
            if mapping.outcome.is_none() {
                mapping.wakers.push(context.waker().clone());
                if mapping.wakers.len() == 1 {
                    let mapping = self.mapping.clone();
                    // The mapping's own callback says that it went well.
                    let done = move |waited: std::result::Result<(), String>| {
                        if waited.is_err() {
                            lock(&mapping).end(waited);
                        }
                    };
                    device.report_when_done(self.submission(), done)?;
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(self.take(device, count))
    }

    /// Asks for the memory to be shown to the host, once.
    fn request(&self) {
        if std::mem::replace(&mut self.mapping().is_requested, true) {
            return;
        }
        let mapping = self.mapping.clone();
        self.raw.slice(..).map_async(wgpu::MapMode::Read, move |outcome| {
            lock(&mapping).end(outcome.map_err(|error| error.to_string()));
        });
    }

    /// Copies the first `count` values of the memory, which the host sees by now, and gives it back to the device.
    fn take<T: bytemuck::AnyBitPattern>(&self, device: &GpuContext, count: usize) -> Result<Vec<T>> {
        let refused = |reason: String| Error::Gpu { what: "reading results back".to_owned(), reason };
        let Mapping { outcome, .. } = std::mem::take(&mut *self.mapping());
        if let Some(Err(reason)) = outcome {
            device.check("waiting for the GPU")?;
            return Err(refused(reason));
        }
        let values = {
            let bytes = ((count * size_of::<T>()) as u64).next_multiple_of(4);
            let view = self.raw.slice(..bytes).get_mapped_range().map_err(|error| refused(error.to_string()))?;
            let bytes: &[u8] = &view;
            bytes.chunks_exact(size_of::<T>()).take(count).map(bytemuck::pod_read_unaligned).collect()
        };
        self.raw.unmap();
        Ok(values)
    }

    /// Returns `true` if a read has begun that has not ended.
    pub fn is_being_read(&self) -> bool {
        self.mapping().is_requested
    }

    /// Notes the submit that copies to this memory.
    pub(super) fn submitted(&self, submission: wgpu::SubmissionIndex) {
        *lock(&self.submission) = Some(submission);
    }

    fn submission(&self) -> Option<wgpu::SubmissionIndex> {
        lock(&self.submission).clone()
    }

    fn mapping(&self) -> MutexGuard<'_, Mapping> {
        lock(&self.mapping)
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.raw
    }
}
