//! Memory on the device.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::context::GpuContext;
use super::readback::Readback;
use crate::error::{Error, Result};

/// A block of device memory. Fresh buffers hold zeros. A clone is the same memory.
#[derive(Clone)]
pub struct Buffer {
    raw: wgpu::Buffer,
    label: String,
    share: Arc<AllocationGuard>,
}

/// Bytes that the device counts as long as they are used, by the buffer itself or by what it is bound to.
pub(super) struct AllocationGuard {
    bytes: u64,
    counter: Arc<AtomicU64>,
}

impl AllocationGuard {
    fn new(device: &GpuContext, bytes: u64) -> Arc<AllocationGuard> {
        device.allocated().fetch_add(bytes, Ordering::Relaxed);
        Arc::new(AllocationGuard { bytes, counter: device.allocated().clone() })
    }
}

impl Drop for AllocationGuard {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Buffer {
    /// A buffer of `bytes` bytes (rounded up to 16) that kernels read and write.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if no kernel could bind it, [`Error::OutOfMemory`] if the device has no room.
    pub fn storage(device: &GpuContext, label: &str, bytes: u64) -> Result<Buffer> {
        Buffer::check(device, label, bytes)?;
        Buffer::create(device, label, bytes, wgpu::BufferUsages::STORAGE)
    }

    /// A storage buffer whose first [`Device::largest_uniform`](crate::gpu::GpuContext::largest_uniform) bytes some
    /// kernels read as a uniform, and later ones where a device [`loops`](crate::gpu::GpuContext::loops_over_lanes).
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn rows(device: &GpuContext, label: &str, bytes: u64) -> Result<Buffer> {
        let bytes = Buffer::rows_bytes(device, bytes);
        Buffer::check(device, label, bytes)?;
        Buffer::create(device, label, bytes, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM)
    }

    /// Returns the size that [`Buffer::rows`] gives to `bytes`.
    pub fn rows_bytes(device: &GpuContext, bytes: u64) -> u64 {
        let uniform = device.largest_uniform();
        // A uniform may begin at any of the rows there, if a kernel can still bind all of them.
        let whole = bytes + uniform;
        if device.loops_over_lanes() && whole <= device.largest_binding() { whole } else { bytes.max(uniform) }
    }

    /// Checks that a kernel can bind `bytes` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`].
    pub fn check(device: &GpuContext, label: &str, bytes: u64) -> Result<()> {
        let limit = device.largest_binding();
        if bytes <= limit {
            return Ok(());
        }
        Err(Error::Limit {
            adapter: device.name(),
            what: label.to_owned(),
            needed: bytes,
            limit,
            unit: "bytes in one binding",
            hint: "use a shorter context, or a smaller model",
        })
    }

    /// A small storage buffer that other kernels read as a uniform: what one kernel decides and all later ones go by.
    /// Compilers know a uniform to be the same for all invocations, so that it may decide over a barrier.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn shared<T>(device: &GpuContext, label: &str) -> Result<Buffer> {
        Buffer::create(device, label, size_of::<T>() as u64, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM)
    }

    /// A storage buffer that holds `values`.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`].
    pub fn with_values<T: bytemuck::NoUninit>(device: &GpuContext, label: &str, values: &[T]) -> Result<Buffer> {
        let buffer = Buffer::storage(device, label, size_of_val(values) as u64)?;
        buffer.write(device, 0, values);
        Ok(buffer)
    }

    /// A uniform buffer that holds `parameters`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn uniform<T: bytemuck::NoUninit>(device: &GpuContext, label: &str, parameters: &T) -> Result<Buffer> {
        let buffer = Buffer::create(device, label, size_of::<T>() as u64, wgpu::BufferUsages::UNIFORM)?;
        buffer.write(device, 0, std::slice::from_ref(parameters));
        Ok(buffer)
    }

    fn create(device: &GpuContext, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<Buffer> {
        let size = bytes.next_multiple_of(16).max(16);
        let scope = device.raw().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let raw = device.raw().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: usage | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        if pollster::block_on(scope.pop()).is_some() {
            return Err(Error::OutOfMemory { adapter: device.name(), what: format!("{label} ({size} bytes)") });
        }
        Ok(Buffer { raw, label: label.to_owned(), share: AllocationGuard::new(device, size) })
    }

    /// Copies `values` to the buffer from byte `offset` on; they are there for every later submit.
    pub fn write<T: bytemuck::NoUninit>(&self, device: &GpuContext, offset: u64, values: &[T]) {
        device.queue().write_buffer(&self.raw, offset, bytemuck::cast_slice(values));
    }

    /// Copies `bytes` bytes from the beginning of `source` to byte `offset`, after what was submitted and before what will
    /// be.
    pub fn copy_from(&self, device: &GpuContext, source: &Buffer, offset: u64, bytes: u64) {
        let mut encoder = device.raw().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&source.raw, 0, &self.raw, offset, bytes);
        device.queue().submit([encoder.finish()]);
    }

    /// The same bytes on another device, through the host's memory, in pieces that bound what is in flight. `from` is where
    /// this buffer is.
    ///
    /// # Errors
    ///
    /// As [`Buffer::storage`] and [`Device::check`](crate::gpu::GpuContext::check).
    pub fn copied_to(&self, from: &GpuContext, to: &GpuContext) -> Result<Buffer> {
        const PIECE_WORDS: usize = 16 << 20;
        let copy = Buffer::storage(to, &self.label, self.bytes())?;
        let words = (self.bytes() / 4) as usize;
        for first in (0..words).step_by(PIECE_WORDS) {
            let offset = 4 * first as u64;
            let piece: Vec<u32> = self.read(from, offset, PIECE_WORDS.min(words - first))?;
            copy.write(to, offset, &piece);
            to.flush()?;
        }
        Ok(copy)
    }

    /// Sets all of it to zero, after what was submitted and before what will be.
    pub fn clear(&self, device: &GpuContext) {
        let mut encoder = device.raw().create_command_encoder(&Default::default());
        encoder.clear_buffer(&self.raw, 0, None);
        device.queue().submit([encoder.finish()]);
    }

    /// Waits for the device and reads `count` values from byte `offset` on.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn read<T: bytemuck::AnyBitPattern>(&self, device: &GpuContext, offset: u64, count: usize) -> Result<Vec<T>> {
        let bytes = ((count * size_of::<T>()) as u64).next_multiple_of(4);
        self.copied(device, &[(offset, bytes)])?.read(device, count)
    }

    /// Waits for the device and reads pieces, each an offset and a length in bytes and multiples of 4, one after the other.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn read_pieces(&self, device: &GpuContext, pieces: &[(u64, u64)]) -> Result<Vec<u8>> {
        let bytes = pieces.iter().map(|&(_, len)| len as usize).sum();
        self.copied(device, pieces)?.read(device, bytes)
    }

    /// Submits copies of pieces to host-visible memory.
    fn copied(&self, device: &GpuContext, pieces: &[(u64, u64)]) -> Result<Readback> {
        let readback = Readback::new(device, pieces.iter().map(|(_, len)| len).sum())?;
        let mut encoder = device.raw().create_command_encoder(&Default::default());
        let mut to = 0;
        for &(offset, len) in pieces {
            encoder.copy_buffer_to_buffer(&self.raw, offset, readback.raw(), to, len);
            to += len;
        }
        readback.submitted(device.queue().submit([encoder.finish()]));
        Ok(readback)
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.raw.size()
    }

    /// Its name in messages and captures.
    pub fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.raw
    }

    pub(super) fn share(&self) -> &Arc<AllocationGuard> {
        &self.share
    }
}
