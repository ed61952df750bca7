//! Shaders that are files of their own, compiled as the engine compiles its kernels.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;

use pard::low_level::gpu::wgpu;
use serde_json::json;

/// Has each of `files`, with one entry point, compiled, and says in `files.jsonl` which module it became.
pub fn compile(folder: &Path, files: &[String]) -> Result<(), Box<dyn Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let adapter = adapters.first().ok_or("no adapter")?;
    let (device, _queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: adapter.features() & !wgpu::Features::MAPPABLE_PRIMARY_BUFFERS,
        // SAFETY: nothing is executed.
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        required_limits: adapter.limits(),
        ..Default::default()
    }))?;
    let mut lines = String::new();
    for file in files {
        let before = modules(folder)?;
        let text = fs::read_to_string(file)?;
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let source = wgpu::ShaderSource::Wgsl(text.into());
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(file), source };
        // SAFETY: nothing is executed.
        let module = unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(file),
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        drop(pipeline);
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(format!("{file}: {error}").into());
        }
        let after = modules(folder)?;
        // A file with the text of another becomes the same module.
        if let Some(module) = after.difference(&before).next() {
            lines += &format!("{}\n", json!({ "module": module, "file": file }));
        }
    }
    Ok(fs::write(folder.join("files.jsonl"), lines)?)
}

/// The modules that were written down so far.
fn modules(folder: &Path) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        if let Some(name) = entry?.file_name().to_str().and_then(|name| name.strip_suffix(".spv")) {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}
