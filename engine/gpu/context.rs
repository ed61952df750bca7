//! An open adapter: its queue, its limits, and whether it still answers. wgpu reports errors through callbacks and panics if
//! there are none; here they are kept and returned by the next call that can fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::adapter;
use super::host_times::HostTimes;
use super::lock::lock;
#[cfg(not(target_arch = "wasm32"))]
use super::waiter::Waiter;
use crate::error::{Error, Result};

/// An open adapter, without the kernels that were compiled for it: what buffers and results need of a [`super::Device`].
pub struct GpuContext {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    limits: wgpu::Limits,
    cooperative_tile: Option<u32>,
    is_bare: bool,
    is_labelled: bool,
    faults: Arc<Mutex<DeviceErrors>>,
    /// Bytes of the buffers that live.
    allocated: Arc<AtomicU64>,
    /// Activities of the host, while a profile is taken.
    pub(super) host_times: HostTimes,
    /// Waits in the place of tasks, once one asks for it.
    #[cfg(not(target_arch = "wasm32"))]
    waiter: Mutex<Option<Waiter>>,
}

/// Receives errors that wgpu reports to no particular caller.
pub type ErrorHook = Box<dyn Fn(&wgpu::Error) + Send + Sync>;

/// The first fault; later ones are usually its consequences.
#[derive(Default)]
struct DeviceErrors {
    lost: Option<String>,
    refused: Option<String>,
    out_of_memory: bool,
}

impl GpuContext {
    /// A device that was opened, whose errors are kept from here on; `hook` is told of each.
    pub(super) fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        cooperative_tile: Option<u32>,
        is_bare: bool,
        hook: Option<ErrorHook>,
    ) -> GpuContext {
        let faults = Arc::new(Mutex::new(DeviceErrors::default()));
        let (on_error, on_loss) = (faults.clone(), faults.clone());
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            if let Some(hook) = &hook {
                hook(&error);
            }
            let mut faults = lock(&on_error);
            faults.out_of_memory |= matches!(error, wgpu::Error::OutOfMemory { .. });
            faults.refused.get_or_insert_with(|| error.to_string());
        }));
        device.set_device_lost_callback(move |reason, message| {
            // Dropping the device is reported here as well, and is no fault.
            if reason != wgpu::DeviceLostReason::Destroyed {
                lock(&on_loss).lost.get_or_insert(message);
            }
        });
        let (info, limits) = (device.adapter_info(), device.limits());
        GpuContext {
            device,
            queue,
            info,
            limits,
            cooperative_tile,
            is_bare,
            is_labelled: adapter::labels_wanted(),
            faults,
            allocated: Arc::default(),
            host_times: HostTimes::default(),
            #[cfg(not(target_arch = "wasm32"))]
            waiter: Mutex::default(),
        }
    }

    /// The adapter's name and driver, as shown to users.
    pub fn name(&self) -> String {
        let info = &self.info;
        format!("{}, {}, {} {}", info.name, info.backend.to_str(), info.driver, info.driver_info).trim().to_owned()
    }

    /// The interface it is driven through: `vulkan`, `metal` or `dx12`.
    pub fn backend(&self) -> &'static str {
        self.info.backend.to_str()
    }

    /// Returns `true` if the driver does not check the accesses of a kernel against its buffer's size.
    pub fn is_bare(&self) -> bool {
        self.is_bare
    }

    /// Returns `true` if the adapter computes on the CPU.
    pub fn is_software(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::Cpu
    }

    /// Returns `true` if the driver turns a load from storage into a loop over the lanes, even where all of them read the same
    /// value, as Mesa's software driver does up to release 22. A uniform is read without one.
    pub fn loops_over_lanes(&self) -> bool {
        adapter::loops_over_lanes(&self.info)
    }

    /// The largest buffer that can be bound to a kernel, in bytes.
    pub fn largest_binding(&self) -> u64 {
        self.limits.max_storage_buffer_binding_size.min(self.limits.max_buffer_size)
    }

    /// The most of a buffer that kernels read as a uniform, in bytes: the adapter's limit, but 64 KiB at most.
    pub fn largest_uniform(&self) -> u64 {
        const ENOUGH: u64 = 64 << 10;
        self.limits.max_uniform_buffer_binding_size.min(ENOUGH).min(self.largest_binding()) / 16 * 16
    }

    /// Alignment of the place in a buffer that a uniform begins at, in bytes.
    pub(crate) fn uniform_alignment(&self) -> u64 {
        self.limits.min_uniform_buffer_offset_alignment.into()
    }

    /// Bytes of all buffers there are on it; what the driver adds, and what is on its way to it, is not counted.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Returns the counter of the bytes of all buffers.
    pub(super) fn allocated(&self) -> &Arc<AtomicU64> {
        &self.allocated
    }

    /// Workgroup memory, in bytes.
    pub fn workgroup_memory(&self) -> u32 {
        self.limits.max_compute_workgroup_storage_size
    }

    /// Workgroups of a kernel that give each core of an adapter of this kind two. No interface tells the number of cores, so
    /// it is that of a large card of the kind: 96 if it has memory of its own, 16 if it shares the host's.
    pub fn busy_workgroups(&self) -> u32 {
        if self.info.device_type == wgpu::DeviceType::DiscreteGpu { 192 } else { 32 }
    }

    /// Invocations of a workgroup, at most.
    pub fn largest_workgroup(&self) -> u32 {
        self.limits.max_compute_invocations_per_workgroup
    }

    /// The smallest and the largest subgroup that kernels may run in, if they may use subgroups at all.
    pub fn subgroup_sizes(&self) -> Option<(u32, u32)> {
        let GpuContext { device, info, .. } = self;
        device.features().contains(wgpu::Features::SUBGROUP).then_some((info.subgroup_min_size, info.subgroup_max_size))
    }

    /// Returns `true` if a row of `lanes` invocations of a workgroup is made of whole subgroups, of whatever size.
    pub fn has_uniform_slices(&self, lanes: u32) -> bool {
        self.subgroup_sizes().is_some_and(|(_, largest)| largest > 0 && lanes.is_multiple_of(largest))
    }

    /// The side of the cooperative matrices of f16 with f32 sums that kernels may use, 16 or 8, if there are any.
    pub fn cooperative_tile(&self) -> Option<u32> {
        self.cooperative_tile
    }

    /// Reports the faults since the last call, if any.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`] or [`Error::Gpu`]; `what` names the work at hand.
    pub fn check(&self, what: &str) -> Result<()> {
        let mut faults = lock(&self.faults);
        if let Some(reason) = &faults.lost {
            return Err(Error::DeviceLost { adapter: self.name(), reason: reason.clone() });
        }
        let Some(reason) = faults.refused.take() else { return Ok(()) };
        if std::mem::take(&mut faults.out_of_memory) {
            return Err(Error::OutOfMemory { adapter: self.name(), what: what.to_owned() });
        }
        Err(Error::Gpu { what: what.to_owned(), reason })
    }

    /// Waits until all work that was submitted is done.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn wait(&self) -> Result<()> {
        let begin = Instant::now();
        let waited = self.wait_for(None);
        self.profile_host("wait", begin);
        waited
    }

    /// Waits until `submission`, or all work there is, is done.
    pub(super) fn wait_for(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        self.poll_as(wgpu::PollType::Wait { submission_index: submission, timeout: None })
    }

    /// Sends what was written to buffers on its way, and waits for it.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub(crate) fn flush(&self) -> Result<()> {
        self.queue.submit([]);
        self.wait()
    }

    /// Calls `done` once `submission` is done, without a thread of the caller's waiting for it.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`].
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn report_when_done(
        &self,
        submission: Option<wgpu::SubmissionIndex>,
        done: impl FnOnce(std::result::Result<(), String>) + Send + 'static,
    ) -> Result<()> {
        let mut waiter = lock(&self.waiter);
        match &*waiter {
            Some(waiter) => waiter.push(submission, done),
            None => waiter.insert(Waiter::start(&self.device)?).push(submission, done),
        }
        Ok(())
    }

    /// A browser calls back by itself.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn report_when_done(
        &self,
        _submission: Option<wgpu::SubmissionIndex>,
        _done: impl FnOnce(std::result::Result<(), String>) + Send + 'static,
    ) -> Result<()> {
        Ok(())
    }

    /// Lets the device report the work done by now.
    pub(super) fn poll(&self) -> Result<()> {
        self.poll_as(wgpu::PollType::Poll)
    }

    fn poll_as(&self, how: wgpu::PollType) -> Result<()> {
        const WHAT: &str = "waiting for the GPU";
        let polled = self.device.poll(how);
        self.check(WHAT)?;
        polled.map(drop).map_err(|error| Error::Gpu { what: WHAT.to_owned(), reason: error.to_string() })
    }

    /// Makes the device unusable, as a driver reset would; everything on it then reports [`Error::DeviceLost`].
    pub fn destroy(&self) {
        lock(&self.faults).lost.get_or_insert_with(|| "it was destroyed".to_owned());
        self.device.destroy();
    }

    /// Notes an activity of the host that began at `begin` and ends now, if a profile is taken.
    pub(crate) fn profile_host(&self, activity: &'static str, begin: Instant) {
        self.host_times.push(activity, begin);
    }

    /// Returns `true` if each dispatch is to be named for debuggers.
    pub(super) fn is_labelled(&self) -> bool {
        self.is_labelled
    }

    /// The driver's words, if the device is lost.
    pub(super) fn lost(&self) -> Option<String> {
        lock(&self.faults).lost.clone()
    }

    pub(super) fn raw(&self) -> &wgpu::Device {
        &self.device
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }
}
