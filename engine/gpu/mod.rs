//! Everything that names wgpu: adapters, the device, buffers, kernels and passes. No other part of the crate does.

mod adapter;
mod audit;
mod bare;
mod buffer;
mod context;
mod device;
mod host_times;
mod integer;
mod kernel;
mod lock;
mod memory;
mod pass;
mod plan;
mod profile;
mod readback;
mod shaders;
mod unroll;
#[cfg(not(target_arch = "wasm32"))]
mod waiter;
mod wgsl;

pub use adapter::{AdapterQuery, AdapterReport, adapters, is_same_adapter};
pub use buffer::Buffer;
pub use context::{ErrorHook, GpuContext};
pub use device::Device;
pub use host_times::HostTime;
pub use kernel::{BINDINGS, Composition, Kernel, UNROLL, UNROLL_BUDGET, compose};
pub use memory::MemoryReport;
pub use pass::{Dispatch, Grid, Pass};
pub use plan::{CacheFormat, KernelPlan, MatmulChoice, MatmulPath, QuantisedChoice, QuantisedProducts};
pub use profile::{DispatchTime, Profile, Work};
pub use readback::Readback;
pub use shaders::{Shaders, names as shader_names, source as shader_source};
/// The wgpu of this crate, for applications that bring a device of their own: [`Device::from_wgpu`] takes devices of this
/// version only.
pub use wgpu;
