//! One open adapter: its queue, its limits, its compiled kernels, and whether it still answers.
//! wgpu reports errors through callbacks and panics if there are none; here they are kept and returned by the next
//! call that can fail.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::adapter::{self, AdapterQuery};
use super::audit::Audit;
use super::bare;
use super::kernel::{Composition, Kernel, UNROLL, UNROLL_BUDGET};
use super::plan::KernelPlan;
use super::profile::{Profile, Profiler, Timer};
#[cfg(not(target_arch = "wasm32"))]
use super::readback::Waiter;
use super::readback::{Pending, Readback};
use super::shaders::Shaders;
use crate::error::{Error, OptionName, Result};

/// An open adapter. Cloning is cheap; all clones are the same device.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    limits: wgpu::Limits,
    cooperative_tile: Option<u32>,
    is_bare: bool,
    is_labelled: bool,
    /// The budget for loops that are written out, if they are.
    unroll: Option<u32>,
    audit: Option<Audit>,
    faults: Arc<Mutex<DeviceErrors>>,
    shaders: Shaders,
    kernels: Mutex<Kernels>,
    profiler: Mutex<Option<Profiler>>,
    /// Bytes of the buffers that live.
    allocated: Arc<AtomicU64>,
    /// Waits in the place of tasks, once one asks for it.
    #[cfg(not(target_arch = "wasm32"))]
    waiter: Mutex<Option<Waiter>>,
}

/// Kernels compiled so far. Operations hold those they run; the rest is let go, since a driver may keep megabytes for each, and
/// Mesa's software driver compiles kernels again at every use once all of them together exceed two million instructions.
#[derive(Default)]
struct Kernels {
    compiled: HashMap<Composition, Weak<Kernel>>,
    /// The latest ones, kept for operations that are soon built again.
    recent: VecDeque<Arc<Kernel>>,
}

/// Kernels kept whether an operation holds them or not.
const MAX_RECENT_KERNELS: usize = 256;

/// Receives errors that wgpu reports to no particular caller.
pub type ErrorHook = Box<dyn Fn(&wgpu::Error) + Send + Sync>;

/// The first fault; later ones are usually its consequences.
#[derive(Default)]
struct DeviceErrors {
    lost: Option<String>,
    refused: Option<String>,
    out_of_memory: bool,
}

impl Device {
    /// Opens the adapter that `query` asks for, with all the limits it offers and its cooperative matrices.
    ///
    /// On Vulkan a release build asks for a device without robust buffer access, since every kernel keeps inside its buffers
    /// by itself; a debug build keeps it. The environment variable `PARD_ROBUST` decides otherwise: `1` keeps it, `0` goes
    /// without.
    ///
    /// # Errors
    ///
    /// [`Error::Adapter`] if there is none, [`Error::Device`] if it does not open.
    pub fn open(query: &AdapterQuery) -> Result<Device> {
        Device::open_with(query, Shaders::default())
    }

    /// As [`Device::open`], with kernels from `shaders`.
    ///
    /// # Errors
    ///
    /// As [`Device::open`].
    pub fn open_with(query: &AdapterQuery, shaders: Shaders) -> Result<Device> {
        Device::open_as(query, shaders, std::env::var("PARD_AUDIT").is_ok_and(|value| value == "1"))
    }

    /// As [`Device::open_with`]; every kernel compares its indices with its arrays' lengths, and whatever submits it fails
    /// with [`Error::Gpu`] if one lies outside, which on other devices is undefined. It waits after every submit, and is for
    /// tests of kernels; `PARD_AUDIT=1` makes every device one of these.
    ///
    /// # Errors
    ///
    /// As [`Device::open`].
    pub fn open_audited(query: &AdapterQuery, shaders: Shaders) -> Result<Device> {
        Device::open_as(query, shaders, true)
    }

    fn open_as(query: &AdapterQuery, shaders: Shaders, is_audited: bool) -> Result<Device> {
        let adapter = adapter::choose(query)?;
        let tile = cooperative_tile(&adapter);
        let cooperative = if tile.is_some() { COOPERATIVE } else { wgpu::Features::empty() };
        let timestamps = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("pard"),
            required_features: adapter.features() & (timestamps | cooperative | wgpu::Features::SUBGROUP),
            // SAFETY: the one experimental feature asked for is cooperative matrices. They are used by one kernel of
            // this crate, only where a user chose it, after a start-up check of its results, and all its accesses lie
            // inside arrays of sizes known at compile time.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let info = adapter.get_info();
        let bare = if is_bare_wanted() && !is_audited { bare::open(&adapter, &descriptor) } else { None };
        let is_bare = bare.is_some();
        let (device, queue) = match bare {
            Some(opened) => opened,
            None => pollster::block_on(adapter.request_device(&descriptor))
                .map_err(|error| Error::Device { adapter: info.name, reason: error.to_string() })?,
        };
        Ok(Device::new(device, queue, shaders, Made { cooperative_tile: tile, is_bare, is_audited }, None))
    }

    /// Shares a device that the application has opened itself, and draws with, say. Both may submit to it from any thread.
    ///
    /// It must have been created with WebGPU's own limits at least as far as compute shaders go, which
    /// [`wgpu::Limits::default`] has: 8 storage buffers and 12 uniform buffers a stage, 16 KiB of workgroup memory, workgroups
    /// of 256, 65535 of them. `max_buffer_size` and `max_storage_buffer_binding_size` bound the matrices that a model may
    /// have; ask for those of [`wgpu::Adapter::limits`]. No feature is needed; profiles need `TIMESTAMP_QUERY`. Only the
    /// adapter would know the size of its cooperative matrices, so it counts as having none, except on Metal, which has one
    /// size.
    ///
    /// wgpu reports errors to one listener, which is the engine from here on: what goes wrong in the application's own
    /// commands is reported by the engine's next call as well. `hook` is told of every error there is, so that the application
    /// need not go without.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`], with the limit that is too low.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue, hook: Option<ErrorHook>) -> Result<Device> {
        check_limits(&device)?;
        let is_known = device.adapter_info().backend == wgpu::Backend::Metal && device.features().contains(COOPERATIVE);
        let made = Made { cooperative_tile: is_known.then_some(8), ..Made::default() };
        Ok(Device::new(device, queue, Shaders::default(), made, hook))
    }

    fn new(device: wgpu::Device, queue: wgpu::Queue, shaders: Shaders, made: Made, hook: Option<ErrorHook>) -> Device {
        let Made { cooperative_tile, is_bare, is_audited } = made;
        let audit = is_audited.then(|| Audit::new(&device));
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
        let unroll = unroll_budget(info.backend);
        let (kernels, profiler, allocated) = (Mutex::default(), Mutex::default(), Arc::default());
        let inner = Inner {
            device,
            queue,
            info,
            limits,
            cooperative_tile,
            is_bare,
            is_labelled: adapter::labels_wanted(),
            unroll,
            audit,
            faults,
            shaders,
            kernels,
            profiler,
            allocated,
            #[cfg(not(target_arch = "wasm32"))]
            waiter: Mutex::default(),
        };
        Device { inner: Arc::new(inner) }
    }

    /// The adapter's name and driver, as shown to users.
    pub fn name(&self) -> String {
        let info = &self.inner.info;
        format!("{}, {}, {} {}", info.name, info.backend.to_str(), info.driver, info.driver_info).trim().to_owned()
    }

    /// The interface it is driven through: `vulkan`, `metal` or `dx12`.
    pub fn backend(&self) -> &'static str {
        self.inner.info.backend.to_str()
    }

    /// Returns `true` if `other` is a clone of this one, so that they share all buffers and kernels.
    pub fn is_same(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Returns `true` if the driver does not check the accesses of a kernel against its buffer's size.
    pub fn is_bare(&self) -> bool {
        self.inner.is_bare
    }

    /// Returns `true` if the adapter computes on the CPU.
    pub fn is_software(&self) -> bool {
        self.inner.info.device_type == wgpu::DeviceType::Cpu
    }

    /// The largest buffer that can be bound to a kernel, in bytes.
    pub fn largest_binding(&self) -> u64 {
        self.inner.limits.max_storage_buffer_binding_size.min(self.inner.limits.max_buffer_size)
    }

    /// The most of a buffer that kernels read as a uniform, in bytes: the adapter's limit, but 64 KiB at most.
    pub fn largest_uniform(&self) -> u64 {
        const ENOUGH: u64 = 64 << 10;
        self.inner.limits.max_uniform_buffer_binding_size.min(ENOUGH).min(self.largest_binding()) / 16 * 16
    }

    /// Bytes of all buffers there are on it; what the driver adds, and what is on its way to it, is not counted.
    pub fn allocated_bytes(&self) -> u64 {
        self.inner.allocated.load(Ordering::Relaxed)
    }

    /// Returns the counter of the bytes of all buffers.
    pub(super) fn allocated(&self) -> &Arc<AtomicU64> {
        &self.inner.allocated
    }

    /// Workgroup memory, in bytes.
    pub fn workgroup_memory(&self) -> u32 {
        self.inner.limits.max_compute_workgroup_storage_size
    }

    /// Workgroups of a kernel that give each core of an adapter of this kind two. No interface tells the number of cores, so
    /// it is that of a large card of the kind: 96 if it has memory of its own, 16 if it shares the host's.
    pub fn busy_workgroups(&self) -> u32 {
        if self.inner.info.device_type == wgpu::DeviceType::DiscreteGpu { 192 } else { 32 }
    }

    /// Invocations of a workgroup, at most.
    pub fn largest_workgroup(&self) -> u32 {
        self.inner.limits.max_compute_invocations_per_workgroup
    }

    /// The smallest and the largest subgroup that kernels may run in, if they may use subgroups at all.
    pub fn subgroup_sizes(&self) -> Option<(u32, u32)> {
        let Inner { device, info, .. } = &*self.inner;
        device.features().contains(wgpu::Features::SUBGROUP).then_some((info.subgroup_min_size, info.subgroup_max_size))
    }

    /// Returns `true` if a row of `lanes` invocations of a workgroup is made of whole subgroups, of whatever size.
    pub fn has_uniform_slices(&self, lanes: u32) -> bool {
        self.subgroup_sizes().is_some_and(|(_, largest)| largest > 0 && lanes.is_multiple_of(largest))
    }

    /// The side of the cooperative matrices of f16 with f32 sums that kernels may use, 16 or 8, if there are any.
    pub fn cooperative_tile(&self) -> Option<u32> {
        self.inner.cooperative_tile
    }

    /// The numeric plan for this class of adapter.
    pub fn default_plan(&self) -> KernelPlan {
        KernelPlan::for_device(self)
    }

    /// The kernel made of the shader files `files` with `constants`, compiled unless it is there already.
    ///
    /// # Errors
    ///
    /// [`Error::Compile`] with the compiler's words, [`Error::DeviceLost`] if compiling ended the device.
    pub fn kernel(&self, files: &[&'static str], constants: &[(&'static str, u32)]) -> Result<Arc<Kernel>> {
        let mut composition = Composition { files: files.to_vec(), constants: constants.to_vec() };
        if let Some(budget) = self.inner.unroll {
            composition.constants.push((UNROLL, budget));
        }
        if let Some(kernel) = lock(&self.inner.kernels).compiled.get(&composition).and_then(Weak::upgrade) {
            return Ok(kernel);
        }
        let kernel = Arc::new(Kernel::compile(self, &composition)?);
        let mut kernels = lock(&self.inner.kernels);
        kernels.compiled.insert(composition, Arc::downgrade(&kernel));
        kernels.recent.push_back(kernel.clone());
        if kernels.recent.len() > MAX_RECENT_KERNELS {
            kernels.recent.pop_front();
        }
        Ok(kernel)
    }

    /// Returns the compositions of the kernels compiled so far, in order.
    pub fn compositions(&self) -> Vec<Composition> {
        let mut compositions: Vec<Composition> = lock(&self.inner.kernels).compiled.keys().cloned().collect();
        compositions.sort();
        compositions
    }

    /// Reports the faults since the last call, if any.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`] or [`Error::Gpu`]; `what` names the work at hand.
    pub fn check(&self, what: &str) -> Result<()> {
        let mut faults = lock(&self.inner.faults);
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
    /// As [`Device::check`].
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
    /// As [`Device::check`].
    pub(super) fn flush(&self) -> Result<()> {
        self.inner.queue.submit([]);
        self.wait()
    }

    /// Ends `pending` once `submission` is done, without a thread of the caller's waiting for it.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`].
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn report_when_done(&self, submission: Option<wgpu::SubmissionIndex>, pending: Pending) -> Result<()> {
        let mut waiter = lock(&self.inner.waiter);
        match &*waiter {
            Some(waiter) => waiter.push(submission, pending),
            None => waiter.insert(Waiter::start(&self.inner.device)?).push(submission, pending),
        }
        Ok(())
    }

    /// Ends `pending` once `submission` is done: a browser reports that by itself.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn report_when_done(&self, _submission: Option<wgpu::SubmissionIndex>, _pending: Pending) -> Result<()> {
        Ok(())
    }

    /// Lets the device report the work done by now.
    pub(super) fn poll(&self) -> Result<()> {
        self.poll_as(wgpu::PollType::Poll)
    }

    fn poll_as(&self, how: wgpu::PollType) -> Result<()> {
        const WHAT: &str = "waiting for the GPU";
        let polled = self.inner.device.poll(how);
        self.check(WHAT)?;
        polled.map(drop).map_err(|error| Error::Gpu { what: WHAT.to_owned(), reason: error.to_string() })
    }

    /// Times every dispatch from here on, and what the host does beside it. With `separate_passes` each kernel gets a pass
    /// of its own, as it does anyhow on adapters that can only time whole passes.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the adapter has no timestamps.
    pub fn start_profile(&self, separate_passes: bool) -> Result<()> {
        let features = self.inner.device.features();
        if !features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            let reason = format!("{} has no timestamps", self.name());
            return Err(Error::Option { option: OptionName::Profile, reason });
        }
        let inside = features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);
        *lock(&self.inner.profiler) = Some(Profiler::new(separate_passes || !inside));
        Ok(())
    }

    /// Ends the profile and returns it; it is empty if none was started.
    ///
    /// # Errors
    ///
    /// As [`Device::check`].
    pub fn end_profile(&self) -> Result<Profile> {
        let Some(mut profiler) = lock(&self.inner.profiler).take() else { return Ok(Profile::default()) };
        profiler.collect(self, true)?;
        Ok(profiler.finish(f64::from(self.inner.queue.get_timestamp_period()) * 1e-9))
    }

    /// Makes the device unusable, as a driver reset would; everything on it then reports [`Error::DeviceLost`].
    pub fn destroy(&self) {
        lock(&self.inner.faults).lost.get_or_insert_with(|| "it was destroyed".to_owned());
        self.inner.device.destroy();
    }

    /// The timer of the pass that is about to be recorded, if a profile is taken.
    pub(super) fn timer(&self) -> Option<Timer> {
        lock(&self.inner.profiler).as_ref().map(Profiler::timer)
    }

    pub(super) fn profile_host(&self, activity: &'static str, begin: Instant) {
        if let Some(profiler) = lock(&self.inner.profiler).as_mut() {
            profiler.host(activity, begin);
        }
    }

    pub(super) fn profile_submit(&self, timer: Timer, readbacks: Vec<Readback>, begin: Instant) -> Result<()> {
        // Taken out meanwhile: reading timestamps back waits, and waits are profiled.
        let Some(mut profiler) = lock(&self.inner.profiler).take() else { return Ok(()) };
        profiler.submitted(timer, readbacks, begin);
        let collected = profiler.collect(self, false);
        *lock(&self.inner.profiler) = Some(profiler);
        collected
    }

    /// Returns `true` if each dispatch is to be named for debuggers.
    pub(super) fn is_labelled(&self) -> bool {
        self.inner.is_labelled
    }

    /// The driver's words, if the device is lost.
    pub(super) fn lost(&self) -> Option<String> {
        lock(&self.inner.faults).lost.clone()
    }

    /// Returns the record of accesses outside their arrays, if kernels report them.
    pub(super) fn audit(&self) -> Option<&Audit> {
        self.inner.audit.as_ref()
    }

    pub(super) fn shaders(&self) -> &Shaders {
        &self.inner.shaders
    }

    pub(super) fn raw(&self) -> &wgpu::Device {
        &self.inner.device
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }
}

/// Checks that `device` was created with the limits that every kernel needs.
fn check_limits(device: &wgpu::Device) -> Result<()> {
    let (has, least) = (device.limits(), wgpu::Limits::default());
    let limits = |limits: &wgpu::Limits| {
        [
            (limits.max_storage_buffers_per_shader_stage, "storage buffers in a stage"),
            (limits.max_uniform_buffers_per_shader_stage, "uniform buffers in a stage"),
            (limits.max_compute_workgroup_storage_size, "bytes of workgroup memory"),
            (limits.max_compute_invocations_per_workgroup, "invocations in a workgroup"),
            (limits.max_compute_workgroup_size_x, "invocations in a row of a workgroup"),
            (limits.max_compute_workgroups_per_dimension, "workgroups in a row"),
        ]
    };
    match limits(&has).into_iter().zip(limits(&least)).find(|((has, _), (least, _))| has < least) {
        None => Ok(()),
        Some(((limit, unit), (needed, _))) => Err(Error::Limit {
            adapter: device.adapter_info().name,
            what: "this engine".to_owned(),
            needed: needed.into(),
            limit: limit.into(),
            unit,
            hint: "create the device with the limits of the adapter, or wgpu::Limits::default() at least",
        }),
    }
}

/// Properties of a device that are set when it is made.
#[derive(Default)]
struct Made {
    cooperative_tile: Option<u32>,
    is_bare: bool,
    is_audited: bool,
}

/// Returns `true` if a device is to be opened without robust buffer access.
fn is_bare_wanted() -> bool {
    match std::env::var("PARD_ROBUST").as_deref() {
        Ok("0") => true,
        Ok("1") => false,
        _ => !cfg!(debug_assertions),
    }
}

/// Returns the budget for writing out the loops of kernels on `backend`, if they are written out. Mesa's compilers (AMD,
/// Intel, NVIDIA, Apple) make the same code either way; FXC and Metal are known to keep arrays in memory that a loop
/// indexes. `PARD_UNROLL` overrides it: the budget, or `0` for none.
fn unroll_budget(backend: wgpu::Backend) -> Option<u32> {
    let usual = matches!(backend, wgpu::Backend::Dx12 | wgpu::Backend::Metal).then_some(UNROLL_BUDGET);
    let asked = std::env::var("PARD_UNROLL").ok().and_then(|value| value.parse().ok());
    asked.map_or(usual, |budget| Some(budget).filter(|&budget| budget > 0))
}

/// Features that cooperative matrices need; their kernel shares its tiles out among subgroups.
const COOPERATIVE: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16).union(wgpu::Features::SUBGROUP);

/// The side of the largest cooperative matrices of f16 with f32 sums that shaders can name and `adapter` has.
fn cooperative_tile(adapter: &wgpu::Adapter) -> Option<u32> {
    // Eight neighbours in a subgroup work together.
    if !adapter.features().contains(COOPERATIVE) || adapter.get_info().subgroup_min_size < 8 {
        return None;
    }
    let offered = adapter.cooperative_matrix_properties();
    let has = |side: &u32| {
        offered.iter().any(|offer| {
            [offer.m_size, offer.n_size, offer.k_size] == [*side; 3]
                && offer.ab_type == wgpu::CooperativeScalarType::F16
                && offer.cr_type == wgpu::CooperativeScalarType::F32
        })
    };
    [16, 8].into_iter().find(has)
}

/// A fault in another thread must not hide the device's own.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
