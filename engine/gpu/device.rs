//! An open adapter with the kernels that are compiled for it, and the profile that is taken of them.

use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use super::adapter::{self, AdapterQuery};
use super::audit::Audit;
use super::bare;
use super::context::{ErrorHook, GpuContext};
use super::kernel::{Composition, Kernel, UNROLL, UNROLL_BUDGET};
use super::lock::lock;
use super::plan::KernelPlan;
use super::profile::{Profile, Profiler, Timer};
use super::readback::Readback;
use super::shaders::Shaders;
use crate::error::{Error, OptionName, Result};

/// An open adapter. Cloning is cheap; all clones are the same device.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    context: GpuContext,
    /// The budget for loops that are written out, if they are.
    unroll: Option<u32>,
    audit: Option<Audit>,
    shaders: Shaders,
    kernels: Mutex<Kernels>,
    profiler: Mutex<Option<Profiler>>,
}

impl Deref for Device {
    type Target = GpuContext;

    fn deref(&self) -> &GpuContext {
        &self.inner.context
    }
}

/// Kernels compiled so far. Operations hold those they run; the rest is let go, since a driver may keep megabytes for
/// each, and Mesa's software driver compiles kernels again at every use once all of them together exceed two million
/// instructions.
#[derive(Default)]
struct Kernels {
    compiled: HashMap<Composition, Weak<Kernel>>,
    /// The latest ones, kept for operations that are soon built again.
    recent: VecDeque<Arc<Kernel>>,
}

/// Kernels kept whether an operation holds them or not.
const MAX_RECENT_KERNELS: usize = 256;

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
    /// [`wgpu::Limits::default`] has: 8 storage buffers and 12 uniform buffers a stage, 16 KiB of workgroup memory,
    /// workgroups of 256, 65535 of them. `max_buffer_size` and `max_storage_buffer_binding_size` bound the matrices
    /// that a model may have; ask for those of [`wgpu::Adapter::limits`]. No feature is needed; profiles need
    /// `TIMESTAMP_QUERY`. Only the adapter would know the size of its cooperative matrices, so it counts as having
    /// none, except on Metal, which has one size.
    ///
    /// wgpu reports errors to one listener, which is the engine from here on: what goes wrong in the application's own
    /// commands is reported by the engine's next call as well. `hook` is told of every error there is, so that the
    /// application need not go without.
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
        let context = GpuContext::new(device, queue, cooperative_tile, is_bare, hook);
        let unroll = unroll_budget(context.raw().adapter_info().backend);
        let (kernels, profiler) = (Mutex::default(), Mutex::default());
        Device { inner: Arc::new(Inner { context, unroll, audit, shaders, kernels, profiler }) }
    }

    /// Returns `true` if `other` is a clone of this one, so that they share all buffers and kernels.
    pub fn is_same(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
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
        let kernel = Arc::new(Kernel::compile(self, &self.inner.shaders, self.audit(), &composition)?);
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

    /// Times every dispatch from here on, and what the host does beside it. With `separate_passes` each kernel gets a pass
    /// of its own, as it does anyhow on adapters that can only time whole passes.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the adapter has no timestamps.
    pub fn start_profile(&self, separate_passes: bool) -> Result<()> {
        let features = self.raw().features();
        if !features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            let reason = format!("{} has no timestamps", self.name());
            return Err(Error::Option { option: OptionName::Profile, reason });
        }
        let inside = features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);
        let begin = Instant::now();
        self.host_times.start(begin);
        *lock(&self.inner.profiler) = Some(Profiler::new(begin, separate_passes || !inside));
        Ok(())
    }

    /// Ends the profile and returns it; it is empty if none was started.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn end_profile(&self) -> Result<Profile> {
        let Some(mut profiler) = lock(&self.inner.profiler).take() else { return Ok(Profile::default()) };
        profiler.collect(self, true)?;
        let period = f64::from(self.queue().get_timestamp_period()) * 1e-9;
        Ok(profiler.finish(self.host_times.end(), period))
    }

    /// The timer of the pass that is about to be recorded, if a profile is taken.
    pub(super) fn timer(&self) -> Option<Timer> {
        lock(&self.inner.profiler).as_ref().map(Profiler::timer)
    }

    pub(super) fn profile_submit(&self, timer: Timer, readbacks: Vec<Readback>, begin: Instant) -> Result<()> {
        // Taken out meanwhile: reading timestamps back waits, and waits are profiled.
        let Some(mut profiler) = lock(&self.inner.profiler).take() else { return Ok(()) };
        profiler.submitted(timer, readbacks, begin);
        let collected = profiler.collect(self, false);
        *lock(&self.inner.profiler) = Some(profiler);
        collected
    }

    /// Returns the record of accesses outside their arrays, if kernels report them.
    pub(super) fn audit(&self) -> Option<&Audit> {
        self.inner.audit.as_ref()
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
