//! Memory of an adapter, as far as it is known. wgpu does not ask; Vulkan answers, and for an adapter that computes on
//! the CPU the system knows. Metal and DX12 would have to be asked through crates of their own, which could not be
//! tested: their memory counts as unknown.

use super::device::Device;

/// Memory of a device in bytes, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryReport {
    /// All there is: the larger of the heaps that are the device's own, or the system's memory.
    pub total: Option<u64>,
    /// Free memory at present, others' use counted: an estimate of the driver or the system.
    pub free: Option<u64>,
}

impl Device {
    /// Returns the device's memory, as far as it is known now.
    pub fn memory(&self) -> MemoryReport {
        // Such a driver's heap has a size of its own invention.
        if self.is_software() { of_system() } else { of_vulkan(self) }
    }
}

/// The system's memory, where it is written in a file.
fn of_system() -> MemoryReport {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    MemoryReport { total: field("MemTotal"), free: field("MemAvailable") }
}

#[cfg(any(target_vendor = "apple", target_arch = "wasm32"))]
fn of_vulkan(_device: &Device) -> MemoryReport {
    MemoryReport::default()
}

/// The largest heap of the device's own, if it is driven through Vulkan.
#[cfg(not(any(target_vendor = "apple", target_arch = "wasm32")))]
fn of_vulkan(device: &Device) -> MemoryReport {
    use ash::{ext::memory_budget, vk};

    // SAFETY: the raw device is only asked about itself, and outlives the questions.
    let Some(raw) = (unsafe { device.raw().as_hal::<wgpu::hal::api::Vulkan>() }) else {
        return MemoryReport::default();
    };
    let (shared, adapter) = (raw.shared_instance(), raw.raw_physical_device());
    let instance = shared.raw_instance();
    // SAFETY: the adapter is this instance's.
    let version = unsafe { instance.get_physical_device_properties(adapter) }.api_version;
    // SAFETY: as above.
    let extensions = unsafe { instance.enumerate_device_extension_properties(adapter) }.unwrap_or_default();
    let knows_budget = version.min(shared.instance_api_version()) >= vk::API_VERSION_1_1
        && extensions.iter().any(|extension| extension.extension_name_as_c_str() == Ok(memory_budget::NAME));
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let heaps = match knows_budget {
        // SAFETY: as above.
        false => unsafe { instance.get_physical_device_memory_properties(adapter) },
        true => {
            let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
            // SAFETY: as above; Vulkan 1.1 has the function, and the extension that the budget is of is there.
            unsafe { instance.get_physical_device_memory_properties2(adapter, &mut properties) };
            properties.memory_properties
        }
    };
    let own = heaps.memory_heaps_as_slice().iter().enumerate();
    let own = own.filter(|(_, heap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    let Some((index, heap)) = own.max_by_key(|(_, heap)| heap.size) else { return MemoryReport::default() };
    let free = budget.heap_budget[index].saturating_sub(budget.heap_usage[index]);
    MemoryReport { total: Some(heap.size), free: knows_budget.then_some(free) }
}
