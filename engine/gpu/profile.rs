//! Times of each dispatch by the device's own clock, and of the host's activities.
//! Timestamps are written inside a pass where the adapter can do that; elsewhere (Apple's) each kernel gets a pass of its
//! own while a profile is taken, which costs a little and hides no kernel.

use std::time::Instant;

use super::context::GpuContext;
use super::host_times::HostTime;
use super::readback::Readback;
use crate::error::Result;

/// Work of a dispatch if nothing is read twice, as its op counts it. The dispatch's time is compared with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Work {
    /// Rows of activations.
    pub rows: u32,
    /// The op's shape: for a product the weights' `[rows, columns]`, for attention `[heads, keys]`, else `[1, width]`.
    pub shape: [u32; 2],
    /// Bytes read and written.
    pub bytes: u64,
    /// Additions and multiplications.
    pub flops: u64,
    /// `true` if most of the bytes are weights or caches, last touched a pass ago; else the kernel before has just
    /// written them.
    pub stored: bool,
}

impl Work {
    /// Work on `rows` rows of `shape` that takes `bytes` and `flops`.
    pub fn of(rows: usize, shape: [usize; 2], bytes: usize, flops: usize) -> Work {
        let [height, width] = shape.map(|side| side as u32);
        Work { rows: rows as u32, shape: [height, width], bytes: bytes as u64, flops: flops as u64, stored: false }
    }

    /// The same, most of whose bytes are weights or caches.
    pub fn stored(self) -> Work {
        Work { stored: true, ..self }
    }
}

/// One dispatch, timed by the device. Times are seconds since the profile began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DispatchTime {
    /// The kernel, named as its file.
    pub kernel: &'static str,
    /// The part of the work it belongs to, as [`super::Pass::section`] named it.
    pub section: &'static str,
    /// The layer of the model that it belongs to, if it is of one.
    pub layer: Option<u32>,
    /// Work of the dispatch.
    pub work: Work,
    /// Time at which it began.
    pub begin: f64,
    /// Time at which it ended.
    pub end: f64,
}

/// Times recorded between [`super::Device::start_profile`] and [`super::Device::end_profile`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// The dispatches of each submit, in order.
    pub submits: Vec<Vec<DispatchTime>>,
    /// Activities of the host, in order.
    pub host: Vec<HostTime>,
    /// `true` if each kernel ran in a pass of its own.
    pub separate_passes: bool,
}

/// A profile being taken.
pub(super) struct Profiler {
    begin: Instant,
    separate_passes: bool,
    /// Submits whose timestamps are not read yet. Adapters keep few query sets alive.
    pending: Vec<Pending>,
    /// Submits with the device's ticks in place of times.
    read: Vec<Submit>,
}

/// Query sets that may wait to be read.
const MAX_PENDING: usize = 16;

struct Pending {
    timed: Vec<Timed>,
    begin: f64,
    readbacks: Vec<Readback>,
}

struct Submit {
    timed: Vec<Timed>,
    /// Time at which the host submitted it.
    begin: f64,
    /// Two for each dispatch.
    ticks: Vec<u64>,
}

struct Timed {
    kernel: &'static str,
    section: &'static str,
    layer: Option<u32>,
    work: Work,
}

/// The timestamps of the pass being recorded.
pub(super) struct Timer {
    sets: Vec<wgpu::QuerySet>,
    timed: Vec<Timed>,
    pub(super) separate_passes: bool,
}

/// Timestamps in one query set.
const SET_SIZE: u32 = wgpu::QUERY_SET_MAX_QUERIES;

impl Profiler {
    pub(super) fn new(begin: Instant, separate_passes: bool) -> Profiler {
        Profiler { begin, separate_passes, pending: Vec::new(), read: Vec::new() }
    }

    pub(super) fn timer(&self) -> Timer {
        Timer { sets: Vec::new(), timed: Vec::new(), separate_passes: self.separate_passes }
    }

    /// Keeps the readbacks of a submit's timestamps.
    pub(super) fn submitted(&mut self, timer: Timer, readbacks: Vec<Readback>, begin: Instant) {
        let begin = begin.saturating_duration_since(self.begin).as_secs_f64();
        self.pending.push(Pending { timed: timer.timed, begin, readbacks });
    }

    /// Reads the timestamps that wait, if they are many or `all` are asked for.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub(super) fn collect(&mut self, device: &GpuContext, all: bool) -> Result<()> {
        if !all && self.pending.len() < MAX_PENDING {
            return Ok(());
        }
        for Pending { timed, begin, readbacks } in std::mem::take(&mut self.pending) {
            let mut ticks: Vec<u64> = Vec::new();
            for readback in readbacks {
                let missing = 2 * timed.len() - ticks.len();
                ticks.extend(readback.read::<u64>(device, missing.min(SET_SIZE as usize))?);
            }
            self.read.push(Submit { timed, begin, ticks });
        }
        Ok(())
    }

    /// The profile, with the activities of the host. The device's clock is laid beside the host's such that no submit
    /// begins before it was made.
    pub(super) fn finish(self, host: Vec<HostTime>, seconds_per_tick: f64) -> Profile {
        let first = self.read.iter().flat_map(|submit| submit.ticks.iter().copied()).min().unwrap_or(0);
        let seconds = |tick: u64| tick.saturating_sub(first) as f64 * seconds_per_tick;
        let lead = |submit: &Submit| submit.ticks.first().map(|&tick| submit.begin - seconds(tick));
        let offset = self.read.iter().filter_map(lead).fold(f64::NEG_INFINITY, f64::max);
        let times = |submit: &Submit| {
            let pairs = submit.timed.iter().zip(submit.ticks.as_chunks::<2>().0);
            pairs
                .map(|(timed, &[begin, end])| DispatchTime {
                    kernel: timed.kernel,
                    section: timed.section,
                    layer: timed.layer,
                    work: timed.work,
                    begin: offset + seconds(begin),
                    end: offset + seconds(end.max(begin)),
                })
                .collect()
        };
        Profile { submits: self.read.iter().map(times).collect(), host, separate_passes: self.separate_passes }
    }
}

impl Timer {
    /// Counts a dispatch; returns its query set and its first timestamp's index there.
    pub(super) fn count(
        &mut self,
        device: &wgpu::Device,
        kernel: &'static str,
        (section, layer): (&'static str, Option<u32>),
        work: Work,
    ) -> (&wgpu::QuerySet, u32) {
        let index = 2 * self.timed.len() as u32 % SET_SIZE;
        if index == 0 {
            self.sets.push(device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count: SET_SIZE,
            }));
        }
        self.timed.push(Timed { kernel, section, layer, work });
        (&self.sets[self.sets.len() - 1], index)
    }

    /// Records the copy of all timestamps to where the host can read them.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub(super) fn resolve(&self, device: &GpuContext, encoder: &mut wgpu::CommandEncoder) -> Result<Vec<Readback>> {
        let mut left = 2 * self.timed.len() as u32;
        self.sets
            .iter()
            .map(|set| {
                let count = left.min(SET_SIZE);
                left -= count;
                let bytes = u64::from(count) * 8;
                let resolved = device.raw().create_buffer(&wgpu::BufferDescriptor {
                    label: Some("profile"),
                    size: bytes,
                    usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: false,
                });
                let readback = Readback::new(device, bytes)?;
                encoder.resolve_query_set(set, 0..count, &resolved, 0);
                encoder.copy_buffer_to_buffer(&resolved, 0, readback.raw(), 0, bytes);
                Ok(readback)
            })
            .collect()
    }
}
