//! Shader files and constants to a pipeline.
//! Composition is concatenation under a prelude of `const` lines: WGSL allows declarations in any order, and a `const`
//! may size workgroups, workgroup memory and register arrays alike, which an `override` may not. The binding layout is
//! read from the shader, so it is written down once.

use std::num::NonZeroU64;

use wgpu::naga;

use super::buffer::Buffer;
use super::device::Device;
use super::pass::{Dispatch, Grid};
use super::shaders::Shaders;
use crate::error::{Error, Result};

/// A compiled compute shader.
pub struct Kernel {
    name: &'static str,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    bindings: Vec<Binding>,
}

/// What a kernel is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Composition {
    /// Shader files, named as in [`super::shader_names`]; the first one names the kernel.
    pub files: Vec<&'static str>,
    /// The prelude.
    pub constants: Vec<(&'static str, u32)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Binding {
    index: u32,
    kind: wgpu::BufferBindingType,
}

/// The WGSL text of `files` of `shaders` under a prelude of `constants`. Files are named as in [`super::shader_names`].
/// The `enable` lines that a file may begin with come before everything else, as WGSL wants them.
///
/// **Errors**: [`Error::Gpu`] if a file is unknown.
pub fn compose(shaders: &Shaders, files: &[&str], constants: &[(&str, u32)]) -> Result<String> {
    let mut enabled = String::new();
    let mut text = String::new();
    for (name, value) in constants {
        text += &format!("const {name}: u32 = {value}u;\n");
    }
    for file in files {
        let source = shaders.source(file).ok_or_else(|| Error::Gpu {
            what: format!("shader {file}"),
            reason: "there is no such file in shaders/".to_owned(),
        })?;
        let directives = source.split_inclusive('\n').take_while(|line| line.starts_with("enable "));
        let length = directives.map(str::len).sum();
        enabled += &source[..length];
        text += &source[length..];
    }
    Ok(enabled + &text)
}

impl Kernel {
    /// Compiles the entry point named like `files[0]`.
    pub(super) fn compile(
        device: &Device,
        files: &[&'static str],
        constants: &[(&'static str, u32)],
    ) -> Result<Kernel> {
        let name = files[0];
        let refused = |reason: String| Error::Gpu { what: format!("shader {name}"), reason };
        let text = compose(device.shaders(), files, constants)?;
        let module = naga::front::wgsl::parse_str(&text)
            .map_err(|error| refused(error.emit_to_string_with_path(&text, name)))?;
        let bindings = bindings(&module);
        let entries: Vec<_> = bindings
            .iter()
            .map(|binding| wgpu::BindGroupLayoutEntry {
                binding: binding.index,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty: binding.kind, has_dynamic_offset: false, min_binding_size: None },
                count: None,
            })
            .collect();
        let raw = device.raw();
        let scope = raw.push_error_scope(wgpu::ErrorFilter::Validation);
        let layout =
            raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(name), entries: &entries });
        let pipeline_layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let shader = create_module(raw, name, text);
        let pipeline = raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&pipeline_layout),
            module: &shader,
            entry_point: Some(name),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(refused(error.to_string()));
        }
        Ok(Kernel { name, pipeline, layout, bindings })
    }

    /// Binds `buffers` to the shader's bindings in order. The result can be dispatched any number of times, by this
    /// kernel and by any other with the same bindings.
    ///
    /// **Errors**: [`Error::Gpu`] if their number or kind is not the shader's.
    pub fn bind(&self, device: &Device, buffers: &[&Buffer]) -> Result<wgpu::BindGroup> {
        let refused = |reason: String| Error::Gpu { what: format!("binding {}", self.name), reason };
        if buffers.len() != self.bindings.len() {
            return Err(refused(format!("{} buffers for {} bindings", buffers.len(), self.bindings.len())));
        }
        let entries: Vec<_> = self
            .bindings
            .iter()
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding: binding.index,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: buffer.raw(),
                    offset: 0,
                    // Of a buffer larger than a uniform can be, the shader reads the beginning.
                    size: match binding.kind {
                        wgpu::BufferBindingType::Uniform => {
                            NonZeroU64::new(buffer.bytes().min(device.largest_uniform()))
                        }
                        wgpu::BufferBindingType::Storage { .. } => None,
                    },
                }),
            })
            .collect();
        let scope = device.raw().push_error_scope(wgpu::ErrorFilter::Validation);
        let group = device.raw().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(self.name),
            layout: &self.layout,
            entries: &entries,
        });
        match pollster::block_on(scope.pop()) {
            Some(error) => Err(refused(error.to_string())),
            None => Ok(group),
        }
    }

    /// A dispatch of this kernel with `buffers`, over `grid` workgroups.
    ///
    /// **Errors**: as [`Kernel::bind`].
    pub fn dispatch(self: &std::sync::Arc<Self>, device: &Device, buffers: &[&Buffer], grid: Grid) -> Result<Dispatch> {
        let shares = buffers.iter().map(|buffer| buffer.share().clone()).collect();
        Ok(Dispatch::new(self.clone(), self.bind(device, buffers)?, shares, grid))
    }

    /// The shader's file, entry point and profiler row.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn pipeline(&self) -> &wgpu::ComputePipeline {
        &self.pipeline
    }
}

/// The bindings of group 0, in order, as the shader declares them.
fn bindings(module: &naga::Module) -> Vec<Binding> {
    let mut bindings: Vec<Binding> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| {
            let index = variable.binding.as_ref()?.binding;
            let kind = match variable.space {
                naga::AddressSpace::Uniform => wgpu::BufferBindingType::Uniform,
                naga::AddressSpace::Storage { access } => {
                    wgpu::BufferBindingType::Storage { read_only: !access.contains(naga::StorageAccess::STORE) }
                }
                _ => return None,
            };
            Some(Binding { index, kind })
        })
        .collect();
    bindings.sort_by_key(|binding| binding.index);
    bindings
}

/// Debug builds keep wgpu's bounds and loop checks; they cost real time on some drivers, so release builds do without.
fn create_module(device: &wgpu::Device, name: &str, text: String) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(name), source: wgpu::ShaderSource::Wgsl(text.into()) };
    if cfg!(debug_assertions) {
        return device.create_shader_module(descriptor);
    }
    // SAFETY: every shader comes from this crate; the tests run all of them with the checks on, over shapes that are
    // no multiple of any tile, and each op checks its operands' shapes before it is built.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
