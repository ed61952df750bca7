//! Opens a Vulkan device without robust buffer access: without the driver's own bounds check of every load and store.
//! wgpu turns it on wherever the adapter has it, even for modules that are made without checks. NVIDIA's open driver then
//! cuts each 16-byte load into four compared ones, Apple's doubles the instructions; AMD's and Intel's check for nothing.
//! Every access of this crate's kernels lies inside its buffer by itself, which tests/bounds.rs checks on the device.
//! `open_with_callback` of wgpu-hal would be the shorter way, but its features cannot be changed from outside, so the
//! device is made here and handed over.

/// Opens `adapter` as [`wgpu::Adapter::request_device`] does, but without robust buffer access. None where that cannot be
/// done: it is not driven through Vulkan, or something failed.
#[cfg(any(target_vendor = "apple", target_arch = "wasm32"))]
pub(super) fn open(
    _adapter: &wgpu::Adapter,
    _descriptor: &wgpu::DeviceDescriptor,
) -> Option<(wgpu::Device, wgpu::Queue)> {
    None
}

/// Opens `adapter` as [`wgpu::Adapter::request_device`] does, but without robust buffer access. None where that cannot be
/// done: it is not driven through Vulkan, or something failed.
#[cfg(not(any(target_vendor = "apple", target_arch = "wasm32")))]
pub(super) fn open(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor,
) -> Option<(wgpu::Device, wgpu::Queue)> {
    use ash::{ext::robustness2, vk};
    use wgpu::hal::api::Vulkan;

    // Checks that `request_device` makes before it opens an adapter, and the way in below does not.
    let is_offered = adapter.features().contains(descriptor.required_features)
        && descriptor.required_limits.check_limits(&adapter.limits());
    if !is_offered {
        return None;
    }
    /// The family that wgpu takes: it has graphics and compute on every adapter that wgpu lists.
    const FAMILY: u32 = 0;
    // SAFETY: nothing of the adapter is destroyed; it outlives the guard.
    let raw = unsafe { adapter.as_hal::<Vulkan>() }?;
    let extensions = raw.required_device_extensions(descriptor.required_features);
    // An extension that is enabled and whose features are not asked for changes nothing.
    let without: Vec<_> = extensions.iter().copied().filter(|&name| name != robustness2::NAME).collect();
    let mut features = raw.physical_device_features(&without, descriptor.required_features);
    let core = features.get_core().robust_buffer_access(false);
    let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(FAMILY).queue_priorities(&[1.0])];
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
    let info = features.add_to_device_create(info).enabled_features(&core);
    let instance = raw.shared_instance().raw_instance();
    // SAFETY: the adapter is this instance's; all that `info` points to lives until the end of this function; extensions
    // and features are those that wgpu asks of this adapter itself, some of them left out.
    let device = unsafe { instance.create_device(raw.raw_physical_device(), &info, None) }.ok()?;
    // SAFETY: the device was made from this adapter just now, with that family and those extensions, which are all that
    // are required, and belongs to wgpu from here on, which destroys it. It has the features that wgpu expects but for
    // robust buffer access. On that wgpu relies in one place: it leaves bounds checks out of the shaders that it
    // translates. The only shaders that run on this device are this crate's, and they need none.
    let opened = unsafe {
        raw.device_from_raw(
            device,
            None,
            &extensions,
            descriptor.required_features,
            &descriptor.required_limits,
            &descriptor.memory_hints,
            FAMILY,
            0,
        )
    };
    drop(raw);
    // SAFETY: the device was opened from this adapter, with the features and limits of `descriptor`.
    unsafe { adapter.create_device_from_hal::<Vulkan>(opened.ok()?, descriptor) }.ok()
}
