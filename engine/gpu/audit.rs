//! Checks on the device that no kernel relies on bounds checks: every index into a buffer, a uniform array or workgroup
//! memory is compared with the array's length, and the first one outside is reported with its kernel. wgpu's own checks
//! cannot tell: they clamp such an index and say nothing.

use std::sync::Mutex;

use super::context::GpuContext;
use super::lock::lock;
use super::readback::Readback;
use super::wgsl::{self, Kind, Token};
use crate::error::{Error, Result};

/// Record of accesses outside their arrays by a device's kernels.
pub(super) struct Audit {
    found: wgpu::Buffer,
    layout: wgpu::BindGroupLayout,
    group: wgpu::BindGroup,
    /// The kernels by number, each with the names of its arrays.
    kernels: Mutex<Vec<(String, Vec<String>)>>,
}

/// Words that a kernel writes there: the number of accesses outside, and for the first one the numbers of the kernel and
/// of the array, and the index.
const WORDS: usize = 4;

impl Audit {
    pub(super) fn new(device: &wgpu::Device) -> Audit {
        let found = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("audit"),
            size: 4 * WORDS as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some("audit"),
            entries: &[wgpu::BindGroupLayoutEntry {
                binding: 0,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: false },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            }],
        });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("audit"),
            layout: &layout,
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: found.as_entire_binding() }],
        });
        Audit { found, layout, group, kernels: Mutex::default() }
    }

    /// Layout of group 1, which kernels have beside their own bindings.
    pub(super) fn layout(&self) -> &wgpu::BindGroupLayout {
        &self.layout
    }

    pub(super) fn group(&self) -> &wgpu::BindGroup {
        &self.group
    }

    /// `text`, which is `module`, with its accesses compared. `kernel` names it.
    pub(super) fn instrument(&self, kernel: String, text: &str, module: &naga::Module) -> String {
        let arrays = arrays(module);
        let mut kernels = lock(&self.kernels);
        let number = kernels.len();
        kernels.push((kernel, arrays.iter().map(|&(name, _)| name.to_owned()).collect()));
        let tokens = wgsl::tokens(text);
        compared(&tokens, &arrays)
            + &format!(
                "
@group(1) @binding(0) var<storage, read_write> audit_found: array<atomic<u32>, {WORDS}>;
fn audit_index(index: u32, length: u32, name: u32) -> u32 {{
    if index < length {{ return index; }}
    if atomicAdd(&audit_found[0], 1u) == 0u {{
        atomicStore(&audit_found[1], {number}u);
        atomicStore(&audit_found[2], name);
        atomicStore(&audit_found[3], index);
    }}
    return length - 1u;
}}
"
            )
    }

    /// Waits for submitted work, and reports an access outside.
    ///
    /// # Errors
    ///
    /// [`Error::Gpu`] with kernel, array and index; as [`Device::check`](crate::gpu::GpuContext::check).
    pub(super) fn check(&self, device: &GpuContext) -> Result<()> {
        let readback = Readback::new(device, 4 * WORDS as u64)?;
        let mut encoder = device.raw().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.found, 0, readback.raw(), 0, 4 * WORDS as u64);
        encoder.clear_buffer(&self.found, 0, None);
        readback.submitted(device.queue().submit([encoder.finish()]));
        let words: Vec<u32> = readback.read(device, WORDS)?;
        let [count, kernel, array, index] = [words[0], words[1], words[2], words[3]];
        if count == 0 {
            return Ok(());
        }
        let kernels = lock(&self.kernels);
        let Some((what, arrays)) = kernels.get(kernel as usize) else {
            return Err(Error::Gpu { what: "audit".to_owned(), reason: format!("there is no kernel {kernel}") });
        };
        let array = arrays.get(array as usize).map_or("?", String::as_str);
        let reason = format!("{array}[{index}] lies outside of {array}; {count} such accesses in one submit");
        Err(Error::Gpu { what: what.clone(), reason })
    }
}

/// The arrays that outlive an invocation, by name, with their length as a WGSL expression.
fn arrays(module: &naga::Module) -> Vec<(&str, String)> {
    let length = |variable: &naga::GlobalVariable, name: &str| match module.types[variable.ty].inner {
        naga::TypeInner::Array { size: naga::ArraySize::Dynamic, .. } => Some(format!("arrayLength(&{name})")),
        naga::TypeInner::Array { size: naga::ArraySize::Constant(length), .. } => Some(format!("{length}u")),
        _ => None,
    };
    let variables = module.global_variables.iter().filter_map(|(_, variable)| {
        let name = variable.name.as_deref()?;
        Some((name, length(variable, name)?))
    });
    variables.collect()
}

/// The text of `tokens`, in which each `name[index]` of an array is `name[audit_index(index, length, number)]`.
fn compared(tokens: &[Token], arrays: &[(&str, String)]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        text += token.text;
        at += 1;
        let array = arrays.iter().position(|(name, _)| token.kind == Kind::Word && *name == token.text);
        let (Some(number), Some("[")) = (array, tokens.get(at).map(|next| next.text)) else { continue };
        let Some(end) = wgsl::closing(tokens, at) else { continue };
        let index = compared(&tokens[at + 1..end], arrays);
        text += &format!("[audit_index({index}, {}, {number}u)]", arrays[number].1);
        at = end + 1;
    }
    text
}
