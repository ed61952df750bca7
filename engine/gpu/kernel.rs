//! Shader files and constants to a pipeline.
//! Composition is concatenation under a prelude of `const` lines: WGSL allows declarations in any order, and a `const`
//! may size workgroups, workgroup memory and register arrays alike, which an `override` may not. The binding layout is
//! read from the shader, so it is written down once.

use std::num::NonZeroU64;

use super::audit::Audit;
use super::buffer::Buffer;
use super::context::GpuContext;
use super::shaders::Shaders;
use super::unroll::unroll;
use crate::error::{Error, Result};

/// A compiled compute shader.
pub struct Kernel {
    name: &'static str,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    bindings: Vec<Binding>,
}

/// Source files and constants of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Composition {
    /// Shader files, named as in [`super::shader_names`]; the first one names the kernel.
    pub files: Vec<&'static str>,
    /// The prelude.
    pub constants: Vec<(&'static str, u32)>,
}

/// The kernel, its other files and its constants, as messages name it.
impl std::fmt::Display for Composition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = self.files.iter().map(|file| (*file).to_owned());
        let constants = self.constants.iter().map(|(name, value)| format!("{name} = {value}"));
        let parts: Vec<String> = files.chain(constants).collect();
        let (name, parts) = parts.split_first().unzip();
        write!(f, "{}", name.map_or("", String::as_str))?;
        match parts.filter(|parts: &&[String]| !parts.is_empty()) {
            None => Ok(()),
            Some(parts) => write!(f, " ({})", parts.join(", ")),
        }
    }
}

/// The constant that has [`compose`] write loops out: the most tokens that a nest of loops may become.
pub const UNROLL: &str = "UNROLL";
/// The most tokens that a nest of loops is written out to on DX12 and Metal.
pub const UNROLL_BUDGET: u32 = 12_000;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Binding {
    index: u32,
    kind: wgpu::BufferBindingType,
}

/// The table of binding numbers, which every kernel is given.
pub const BINDINGS: &str = "shared/bindings";

/// The WGSL text of `files` of `shaders` under a prelude of `constants`. Files are named as in [`super::shader_names`].
/// The `enable` lines that a file may begin with come before everything else, as WGSL wants them.
/// The constant [`UNROLL`] is the composer's own: loops with constant bounds are written out, to at most as many tokens.
///
/// # Errors
///
/// [`Error::Gpu`] if a file is unknown.
pub fn compose(shaders: &Shaders, files: &[&str], constants: &[(&str, u32)]) -> Result<String> {
    let mut enabled = String::new();
    let mut text = String::new();
    for (name, value) in constants {
        text += &format!("const {name}: u32 = {value}u;\n");
    }
    for file in [BINDINGS].iter().chain(files) {
        let source = shaders.source(file).ok_or_else(|| Error::Gpu {
            what: format!("shader {file}"),
            reason: "there is no such file in shaders/".to_owned(),
        })?;
        let directives = source.split_inclusive('\n').take_while(|line| line.starts_with("enable "));
        let length = directives.map(str::len).sum();
        enabled += &source[..length];
        text += &source[length..];
    }
    let text = enabled + &text;
    match constants.iter().find(|(name, _)| *name == UNROLL) {
        Some(&(_, budget)) if budget > 0 => Ok(unroll(&text, budget as usize)),
        _ => Ok(text),
    }
}

impl Kernel {
    /// Compiles the entry point named like the first file.
    ///
    /// # Errors
    ///
    /// [`Error::Gpu`] if a file is unknown; [`Error::Compile`], or [`Error::DeviceLost`] if the driver's compiler
    /// took the device with it.
    pub(super) fn compile(
        device: &GpuContext,
        shaders: &Shaders,
        audit: Option<&Audit>,
        composition: &Composition,
    ) -> Result<Kernel> {
        let name = composition.files[0];
        if let Some(reason) = device.lost() {
            return Err(Error::DeviceLost { adapter: device.name(), reason });
        }
        let refused = |reason: String| {
            let (adapter, kernel) = (device.name(), composition.to_string());
            Error::Compile { adapter, kernel, reason }
        };
        let text = compose(shaders, &composition.files, &composition.constants)?;
        let module = naga::front::wgsl::parse_str(&text)
            .map_err(|error| refused(error.emit_to_string_with_path(&text, name)))?;
        let bytes = private_bytes(&module);
        if bytes > MAX_PRIVATE {
            let reason =
                format!("its invocations hold {bytes} bytes in variables each, and {MAX_PRIVATE} are the most");
            return Err(refused(reason));
        }
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
        let text = match audit {
            Some(audit) => audit.instrument(composition.to_string(), &text, &module),
            None => text,
        };
        let raw = device.raw();
        // Innermost last: a compiler that gives up reports no fault of validation.
        let filters = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        let scopes = filters.map(|filter| raw.push_error_scope(filter));
        let layout =
            raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(name), entries: &entries });
        let layouts: Vec<_> = std::iter::once(&layout).chain(audit.map(Audit::layout)).map(Some).collect();
        let pipeline_layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &layouts,
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
        let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect::<Vec<_>>();
        // wgpu gives up the device where a compiler runs out of memory or fails for no reason it knows; that is all that
        // it says.
        if let Some(reason) = device.lost() {
            let reason = format!("compiling the kernel {composition} ended it ({reason}); update the driver");
            return Err(Error::DeviceLost { adapter: device.name(), reason });
        }
        if let Some(error) = errors.first() {
            return Err(refused(error.to_string()));
        }
        Ok(Kernel { name, pipeline, layout, bindings })
    }

    /// Binds `buffers` to the shader's bindings in order. The result can be dispatched any number of times, by this
    /// kernel and by any other with the same bindings.
    ///
    /// # Errors
    ///
    /// [`Error::Gpu`] if their number or kind is not the shader's.
    pub fn bind(&self, device: &GpuContext, buffers: &[&Buffer]) -> Result<wgpu::BindGroup> {
        let whole: Vec<_> = buffers.iter().map(|&buffer| (buffer, 0)).collect();
        self.bind_from(device, &whole)
    }

    /// Binds each buffer from a byte on, as [`Kernel::bind`] does from their beginnings.
    ///
    /// # Errors
    ///
    /// As [`Kernel::bind`].
    pub(super) fn bind_from(&self, device: &GpuContext, buffers: &[(&Buffer, u64)]) -> Result<wgpu::BindGroup> {
        let refused = |reason: String| Error::Gpu { what: format!("binding {}", self.name), reason };
        if buffers.len() != self.bindings.len() {
            return Err(refused(format!("{} buffers for {} bindings", buffers.len(), self.bindings.len())));
        }
        let entries: Vec<_> = self
            .bindings
            .iter()
            .zip(buffers)
            .map(|(binding, &(buffer, first))| wgpu::BindGroupEntry {
                binding: binding.index,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: buffer.raw(),
                    offset: first,
                    // The shader reads the beginning of a buffer that is larger than a uniform can be.
                    size: match binding.kind {
                        wgpu::BufferBindingType::Uniform => {
                            NonZeroU64::new((buffer.bytes() - first).min(device.largest_uniform()))
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

    /// The shader's file, entry point and profiler row.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn pipeline(&self) -> &wgpu::ComputePipeline {
        &self.pipeline
    }
}

/// The most that an invocation may hold in variables, in bytes. Compilers keep them in registers, of which there are 1 KiB
/// at most; beyond 128 KiB some drivers lose the device (wgpu #10027).
const MAX_PRIVATE: u64 = 16 << 10;

/// Bytes of the variables that an invocation of `module` has at once, were all functions' alive together.
fn private_bytes(module: &naga::Module) -> u64 {
    let entry_points = module.entry_points.iter().map(|entry_point| &entry_point.function);
    let functions = module.functions.iter().map(|(_, function)| function).chain(entry_points);
    let locals = functions.flat_map(|function| function.local_variables.iter().map(|(_, variable)| variable.ty));
    let globals = module.global_variables.iter().map(|(_, variable)| variable);
    let globals = globals.filter(|variable| variable.space == naga::AddressSpace::Private).map(|variable| variable.ty);
    locals.chain(globals).map(|ty| u64::from(module.types[ty].inner.size(module.to_ctx()))).sum()
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
