//! Recording work: one encoder, one pass, one submit.

use std::sync::Arc;

use super::buffer::{Buffer, Readback};
use super::device::Device;
use super::kernel::Kernel;
use crate::error::Result;

/// Workgroups in x, y and z.
pub type Grid = [u32; 3];

/// A kernel with its operands bound: encoding it costs microseconds, building it does not happen twice.
pub struct Dispatch {
    kernel: Arc<Kernel>,
    group: wgpu::BindGroup,
    grid: Grid,
}

impl Dispatch {
    pub(super) fn new(kernel: Arc<Kernel>, group: wgpu::BindGroup, grid: Grid) -> Dispatch {
        Dispatch { kernel, group, grid }
    }

    /// Records it over its own grid.
    pub fn encode(&self, pass: &mut Pass) {
        pass.dispatch(&self.kernel, &self.group, self.grid);
    }

    /// Records it over `grid` in place of its own.
    pub fn encode_over(&self, pass: &mut Pass, grid: Grid) {
        pass.dispatch(&self.kernel, &self.group, grid);
    }

    /// Records `kernel`, which has the same bindings, with these operands.
    pub fn encode_with(&self, pass: &mut Pass, kernel: &Kernel, grid: Grid) {
        pass.dispatch(kernel, &self.group, grid);
    }
}

/// Work being recorded. The only caller of `dispatch_workgroups`.
pub struct Pass {
    raw: wgpu::ComputePass<'static>,
}

impl Pass {
    /// Records what `record` asks for and submits it; `copy` is then copied to the readback buffer, if given.
    ///
    /// **Errors**: those of `record`, and as [`Device::check`].
    pub fn submit(
        device: &Device,
        copy: Option<(&Buffer, &Readback)>,
        record: impl FnOnce(&mut Pass) -> Result<()>,
    ) -> Result<()> {
        let mut encoder = device.raw().create_command_encoder(&Default::default());
        let mut pass = Pass { raw: encoder.begin_compute_pass(&Default::default()).forget_lifetime() };
        let recorded = record(&mut pass);
        drop(pass);
        recorded?;
        if let Some((source, target)) = copy {
            encoder.copy_buffer_to_buffer(source.raw(), 0, target.raw(), 0, source.bytes());
        }
        device.queue().submit([encoder.finish()]);
        device.check("submitting work")
    }

    fn dispatch(&mut self, kernel: &Kernel, group: &wgpu::BindGroup, grid: Grid) {
        // An empty grid is legal and does nothing; some drivers warn about it.
        if grid.contains(&0) {
            return;
        }
        self.raw.set_pipeline(kernel.pipeline());
        self.raw.set_bind_group(0, group, &[]);
        self.raw.dispatch_workgroups(grid[0], grid[1], grid[2]);
    }
}
