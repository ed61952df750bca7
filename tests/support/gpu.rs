//! The device that tests run on, and what they share to put models on it.

use std::io::Write as _;
use std::sync::{Arc, LazyLock};

use pard::checkpoint::config::Config;
use pard::low_level::gpu::{AdapterQuery, CacheFormat, Device, KernelPlan, MatmulChoice, MatmulPath};
use pard::model::{WeightDtype, Weights};

use super::memory::Memory;
use super::tiny_model::{Recipe, Tensors};

/// The adapter under test: the best one, or the one that `WGPU_ADAPTER_NAME` names. A machine without any fails.
pub fn device() -> &'static Device {
    static DEVICE: LazyLock<Device> =
        LazyLock::new(|| Device::open(&AdapterQuery::default()).expect("these tests need a GPU or a software adapter"));
    &DEVICE
}

/// The adapter's plan with the cache format `cache`.
pub fn plan(cache: CacheFormat) -> KernelPlan {
    KernelPlan { cache, ..device().default_plan() }
}

/// The adapter's plan with cooperative products; where it has no such matrices, a line says what was not tested.
pub fn cooperative_plan(test: &str) -> Option<KernelPlan> {
    let Some(tile) = device().cooperative_tile() else {
        // Past the test harness, which keeps what a passing test prints to itself.
        let name = device().name();
        let _ = writeln!(std::io::stderr(), "NOT HERE: {test}: {name} has no cooperative matrices, and refuses them");
        return None;
    };
    Some(KernelPlan { products: MatmulPath::Cooperative { tile }, ..device().default_plan() })
}

/// Kernels for the real model's matrix products: `PARD_PRODUCTS=cooperative` selects the adapter's matrix units.
pub fn products() -> MatmulChoice {
    match std::env::var("PARD_PRODUCTS").as_deref() {
        Err(_) | Ok("plain") => MatmulChoice::Plain,
        Ok("cooperative") => MatmulChoice::Cooperative,
        Ok(other) => panic!("PARD_PRODUCTS is {other:?}; there are plain and cooperative"),
    }
}

/// Features that cooperative matrices need.
const COOPERATIVE: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16).union(wgpu::Features::SUBGROUP);

/// Uploads the model of `recipe`.
pub fn upload(recipe: &Recipe, plan: &KernelPlan) -> Arc<Weights> {
    upload_tensors(&recipe.config, recipe.tensors(), plan)
}

/// Uploads the model of `config` whose weights are `tensors`.
pub fn upload_tensors(config: &Config, tensors: Tensors, plan: &KernelPlan) -> Arc<Weights> {
    let memory = Memory::new(tensors);
    let model = Weights::upload(device(), plan, config, &memory, WeightDtype::Compact, &|_, _| ());
    Arc::new(model.expect("upload"))
}

/// Returns `true` if the long sweeps were requested.
pub fn sweep() -> bool {
    std::env::var_os("PARD_SWEEP").is_some()
}

/// The adapter under test, opened anew with bindings of `bytes` at most, as adapters of other makes have them.
pub fn device_with_binding_limit(bytes: u64) -> Device {
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let descriptor = wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
    let instance = wgpu::Instance::new(descriptor);
    for adapter in pollster::block_on(instance.enumerate_adapters(backends)) {
        let required_limits = wgpu::Limits { max_storage_buffer_binding_size: bytes, ..adapter.limits() };
        let descriptor = wgpu::DeviceDescriptor {
            required_limits,
            required_features: COOPERATIVE & adapter.features(),
            // SAFETY: as in the engine: one kernel uses cooperative matrices, inside arrays of known sizes.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            ..Default::default()
        };
        let Ok((raw, queue)) = pollster::block_on(adapter.request_device(&descriptor)) else { continue };
        let opened = Device::from_wgpu(raw, queue, None).expect("limits as every adapter has them");
        if opened.name() == device().name() {
            return opened;
        }
    }
    panic!("{} cannot be opened twice", device().name());
}

/// A device that does nothing but check what it is asked for, under the limits that every WebGPU adapter has.
pub fn noop() -> Device {
    let (raw, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    Device::from_wgpu(raw, queue, None).expect("the usual limits")
}

/// Likewise, with cooperative matrices and the workgroup memory of every adapter that has them.
pub fn noop_with_cooperative_matrices() -> Device {
    let (raw, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor {
        required_features: COOPERATIVE,
        required_limits: wgpu::Limits { max_compute_workgroup_storage_size: 32 << 10, ..Default::default() },
        // SAFETY: nothing runs on this device.
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        ..Default::default()
    });
    Device::from_wgpu(raw, queue, None).expect("the usual limits")
}
