//! Detection of adapters that multiply packed bytes in one instruction. Every adapter has WGSL's `dot4I8Packed`; if it is
//! many instructions, products in floats are faster. wgpu does not tell which; Vulkan does. Metal has no such
//! instruction, and DX12 does not tell.

use super::context::GpuContext;

impl GpuContext {
    /// Returns `true` if it is known to add up four products of signed bytes in one instruction.
    pub fn has_integer_dot_products(&self) -> bool {
        !self.is_software() && of_vulkan(self)
    }
}

#[cfg(any(target_vendor = "apple", target_arch = "wasm32"))]
fn of_vulkan(_device: &GpuContext) -> bool {
    false
}

#[cfg(not(any(target_vendor = "apple", target_arch = "wasm32")))]
fn of_vulkan(device: &GpuContext) -> bool {
    use ash::vk;

    // SAFETY: the raw device is only asked about itself, and outlives the questions.
    let Some(raw) = (unsafe { device.raw().as_hal::<wgpu::hal::api::Vulkan>() }) else { return false };
    let (shared, adapter) = (raw.shared_instance(), raw.raw_physical_device());
    let instance = shared.raw_instance();
    // SAFETY: the adapter is this instance's.
    let version = unsafe { instance.get_physical_device_properties(adapter) }.api_version;
    if version.min(shared.instance_api_version()) < vk::API_VERSION_1_3 {
        return false;
    }
    let mut dot_products = vk::PhysicalDeviceShaderIntegerDotProductProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut dot_products);
    // SAFETY: as above; Vulkan 1.3 has the function and what it is asked for.
    unsafe { instance.get_physical_device_properties2(adapter, &mut properties) };
    dot_products.integer_dot_product4x8_bit_packed_signed_accelerated == vk::TRUE
}
