//! Recording work: one encoder, one pass, one submit.

use std::sync::Arc;
use std::time::Instant;

use super::buffer::{AllocationGuard, Buffer};
use super::device::Device;
use super::kernel::Kernel;
use super::profile::{Timer, Work};
use super::readback::Readback;
use crate::error::Result;

/// Workgroups in x, y and z.
pub type Grid = [u32; 3];

/// A kernel with its operands bound: encoding it costs microseconds, building it does not happen twice.
pub struct Dispatch {
    kernel: Arc<Kernel>,
    group: wgpu::BindGroup,
    /// Keeps the bytes of the group's buffers counted.
    _shares: Vec<Arc<AllocationGuard>>,
    grid: Grid,
}

impl Dispatch {
    pub(super) fn new(
        kernel: Arc<Kernel>,
        group: wgpu::BindGroup,
        shares: Vec<Arc<AllocationGuard>>,
        grid: Grid,
    ) -> Dispatch {
        Dispatch { kernel, group, _shares: shares, grid }
    }

    /// Records it over its own grid. `work` is the dispatch's, for profiles.
    pub fn encode(&self, pass: &mut Pass, work: Work) {
        pass.dispatch(&self.kernel, &self.group, self.grid, work);
    }

    /// Records it over `grid` in place of its own.
    pub fn encode_over(&self, pass: &mut Pass, grid: Grid, work: Work) {
        pass.dispatch(&self.kernel, &self.group, grid, work);
    }

    /// Records `kernel`, which has the same bindings, with these operands.
    pub fn encode_with(&self, pass: &mut Pass, kernel: &Kernel, grid: Grid, work: Work) {
        pass.dispatch(kernel, &self.group, grid, work);
    }
}

impl Kernel {
    /// A dispatch of this kernel with `buffers`, over `grid` workgroups.
    ///
    /// # Errors
    ///
    /// As [`Kernel::bind`].
    pub fn dispatch(self: &Arc<Self>, device: &Device, buffers: &[&Buffer], grid: Grid) -> Result<Dispatch> {
        let whole: Vec<_> = buffers.iter().map(|&buffer| (buffer, 0)).collect();
        self.dispatch_from(device, &whole, grid)
    }

    /// A dispatch of this kernel with each buffer from a byte on, over `grid` workgroups.
    ///
    /// # Errors
    ///
    /// As [`Kernel::bind`].
    pub(crate) fn dispatch_from(
        self: &Arc<Self>,
        device: &Device,
        buffers: &[(&Buffer, u64)],
        grid: Grid,
    ) -> Result<Dispatch> {
        let shares = buffers.iter().map(|(buffer, _)| buffer.share().clone()).collect();
        Ok(Dispatch::new(self.clone(), self.bind_from(device, buffers)?, shares, grid))
    }
}

/// Work being recorded. The only caller of `dispatch_workgroups`.
pub struct Pass {
    device: Device,
    /// Open from the first dispatch on. It ends before its encoder.
    raw: Option<wgpu::ComputePass<'static>>,
    encoder: wgpu::CommandEncoder,
    section: &'static str,
    layer: Option<u32>,
    timer: Option<Timer>,
}

impl Pass {
    /// Records the dispatches of `record` and submits them; each of `copies` is then copied to its readback buffer.
    ///
    /// # Errors
    ///
    /// Those of `record`, and as [`Device::check`](crate::gpu::GpuContext::check).
    pub fn submit<'a>(
        device: &Device,
        copies: impl IntoIterator<Item = (&'a Buffer, &'a Readback)>,
        record: impl FnOnce(&mut Pass) -> Result<()>,
    ) -> Result<()> {
        let begin = Instant::now();
        let encoder = device.raw().create_command_encoder(&Default::default());
        let mut pass =
            Pass { device: device.clone(), encoder, raw: None, section: "", layer: None, timer: device.timer() };
        record(&mut pass)?;
        let Pass { mut encoder, raw, timer, .. } = pass;
        drop(raw);
        let mut targets = Vec::new();
        for (source, target) in copies {
            encoder.copy_buffer_to_buffer(source.raw(), 0, target.raw(), 0, source.bytes());
            targets.push(target);
        }
        let timed = match timer {
            Some(timer) => Some((timer.resolve(device, &mut encoder)?, timer)),
            None => None,
        };
        let commands = encoder.finish();
        device.profile_host("encode", begin);
        let begin = Instant::now();
        let submission = device.queue().submit([commands]);
        device.profile_host("submit", begin);
        for target in targets {
            target.submitted(submission.clone());
        }
        if let Some((readbacks, timer)) = timed {
            device.profile_submit(timer, readbacks, begin)?;
        }
        device.check("submitting work")?;
        device.audit().map_or(Ok(()), |audit| audit.check(device))
    }

    /// Names the part of the work that the dispatches from here on belong to, for profiles.
    pub fn section(&mut self, name: &'static str) {
        self.section = name;
    }

    /// Names the layer that the dispatches from here on belong to, if they are of one, for profiles.
    pub fn layer(&mut self, layer: Option<usize>) {
        self.layer = layer.map(|layer| layer as u32);
    }

    fn dispatch(&mut self, kernel: &Kernel, group: &wgpu::BindGroup, grid: Grid, work: Work) {
        // An empty grid is legal and does nothing; some drivers warn about it.
        if grid.contains(&0) {
            return;
        }
        let [x, y, z] = grid;
        let audit = self.device.audit().map(|audit| audit.group().clone());
        let label = self.device.is_labelled().then(|| self.label(kernel, &work));
        let run = |raw: &mut wgpu::ComputePass| {
            if let Some(label) = &label {
                raw.push_debug_group(label);
            }
            raw.set_pipeline(kernel.pipeline());
            raw.set_bind_group(0, group, &[]);
            if audit.is_some() {
                raw.set_bind_group(1, &audit, &[]);
            }
            raw.dispatch_workgroups(x, y, z);
            if label.is_some() {
                raw.pop_debug_group();
            }
        };
        let Pass { device, encoder, raw, section, layer, timer } = self;
        let mut begin_pass = |writes: Option<wgpu::ComputePassTimestampWrites>| {
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: writes };
            encoder.begin_compute_pass(&descriptor).forget_lifetime()
        };
        let Some(timer) = timer else {
            return run(raw.get_or_insert_with(|| begin_pass(None)));
        };
        let separate = timer.separate_passes;
        let (query_set, index) = timer.count(device.raw(), kernel.name(), (section, *layer), work);
        if separate {
            return run(&mut begin_pass(Some(wgpu::ComputePassTimestampWrites {
                query_set,
                beginning_of_pass_write_index: Some(index),
                end_of_pass_write_index: Some(index + 1),
            })));
        }
        let raw = raw.get_or_insert_with(|| begin_pass(None));
        raw.write_timestamp(query_set, index);
        run(raw);
        raw.write_timestamp(query_set, index + 1);
    }

    /// A dispatch as debuggers show it: section, layer, kernel, rows and shape.
    fn label(&self, kernel: &Kernel, work: &Work) -> String {
        let layer = self.layer.map_or(String::new(), |layer| format!(" layer {layer}"));
        let [height, width] = work.shape;
        format!("{}{layer}: {}, {} rows, {height} x {width}", self.section, kernel.name(), work.rows)
    }
}
