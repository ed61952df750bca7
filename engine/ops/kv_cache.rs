//! The keys and values of a layer.

use super::AttentionShape;
use crate::error::Result;
use crate::gpu::{Buffer, CacheFormat, Device, KernelPlan};

/// Positions whose keys lie side by side; attention's lanes, one a key.
pub(super) const KEY_TILE: usize = 64;

/// The cache's first half, in messages.
const KEYS: &str = "key cache";

/// The keys and values of one layer, for one sequence or for several, each in a slot of its own. How many of them are
/// valid is the session's business.
pub struct KvCache {
    /// `[slots, kv_heads, capacity / 64, head_dim / 8, 64, 8]`, with the capacity a multiple of 64; in 8 bits
    /// `[slots, kv_heads, capacity / 64, words, 64]`, where the words of a row are its numbers, four in one, and then its
    /// scales.
    pub keys: Buffer,
    /// `[slots, kv_heads, capacity, head_dim]`; in 8 bits `[slots, kv_heads, capacity, words]`.
    pub values: Buffer,
    pub(super) capacity: usize,
    pub(super) format: CacheFormat,
}

impl KvCache {
    /// Room for at least `positions` positions.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Limit`] or [`crate::Error::OutOfMemory`] if it is too large for the device.
    pub fn new(device: &Device, plan: &KernelPlan, shape: &AttentionShape, positions: usize) -> Result<KvCache> {
        KvCache::with_slots(device, plan, shape, 1, positions)
    }

    /// Room for at least `positions` positions of each of `slots` sequences.
    ///
    /// # Errors
    ///
    /// As [`KvCache::new`].
    pub fn with_slots(
        device: &Device,
        plan: &KernelPlan,
        shape: &AttentionShape,
        slots: usize,
        positions: usize,
    ) -> Result<KvCache> {
        let capacity = positions.next_multiple_of(KEY_TILE);
        let bytes = slots as u64 * KvCache::bytes(plan.cache, shape, positions) / 2;
        Ok(KvCache {
            keys: Buffer::storage(device, KEYS, bytes)?,
            values: Buffer::storage(device, "value cache", bytes)?,
            capacity,
            format: plan.cache,
        })
    }

    /// Checks that the keys of `with_slots`, and so its values, fit in one binding.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Limit`].
    pub fn check(
        device: &Device,
        plan: &KernelPlan,
        shape: &AttentionShape,
        slots: usize,
        positions: usize,
    ) -> Result<()> {
        Buffer::check(device, KEYS, (slots as u64).saturating_mul(KvCache::bytes(plan.cache, shape, positions) / 2))
    }

    /// Device memory that a slot of `positions` positions takes.
    pub fn bytes(format: CacheFormat, shape: &AttentionShape, positions: usize) -> u64 {
        let capacity = positions.next_multiple_of(KEY_TILE);
        2 * (shape.kv_heads * capacity * format.row_bytes(shape.head_dim)) as u64
    }

    /// The keys and values of the first `positions` positions of slot `slot`, up to the next multiple of 64: the keys of each
    /// head, then the values of each, [`KvCache::bytes`] in all. Waits for the device.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn read_slot(&self, device: &Device, shape: &AttentionShape, slot: usize, positions: usize) -> Result<Vec<u8>> {
        let pieces: Vec<_> = self.pieces(shape, slot, positions).collect();
        Ok([self.keys.read_pieces(device, &pieces)?, self.values.read_pieces(device, &pieces)?].concat())
    }

    /// Sets what [`KvCache::read_slot`] read, here or in a cache of other capacity.
    pub fn write_slot(&self, device: &Device, shape: &AttentionShape, slot: usize, positions: usize, bytes: &[u8]) {
        let (keys, values) = bytes.split_at(bytes.len() / 2);
        for (buffer, bytes) in [(&self.keys, keys), (&self.values, values)] {
            let mut rest = bytes;
            for (offset, len) in self.pieces(shape, slot, positions) {
                let (piece, after) = rest.split_at(len as usize);
                buffer.write(device, offset, piece);
                rest = after;
            }
        }
    }

    /// Offset and length of what each head has of the first `positions` positions of slot `slot`, in bytes.
    fn pieces(&self, shape: &AttentionShape, slot: usize, positions: usize) -> impl Iterator<Item = (u64, u64)> {
        let row = self.format.row_bytes(shape.head_dim);
        let (head, len) = (self.capacity * row, positions.next_multiple_of(KEY_TILE) * row);
        let first = slot * shape.kv_heads;
        (first..first + shape.kv_heads).map(move |index| ((index * head) as u64, len as u64))
    }

    /// The shader files that read it.
    pub(super) fn readers(&self) -> [&'static str; 2] {
        match self.format {
            CacheFormat::F16 => ["cache/read_f16", "cache/keys"],
            CacheFormat::F32 => ["cache/read_f32", "cache/keys"],
            CacheFormat::Q8_0 => ["cache/read_q8_0", "cache/q8_0"],
        }
    }

    /// The shader files that write it.
    pub(super) fn writers(&self) -> [&'static str; 2] {
        match self.format {
            CacheFormat::F16 => ["cache/write_f16", "cache/keys"],
            CacheFormat::F32 => ["cache/write_f32", "cache/keys"],
            CacheFormat::Q8_0 => ["cache/write_q8_0", "cache/q8_0"],
        }
    }

    /// Returns the constants of the cache and of `shape` for those files and the kernels that they are parts of.
    pub(super) fn constants(&self, shape: &AttentionShape) -> Vec<(&'static str, u32)> {
        let block = (self.format == CacheFormat::Q8_0).then(|| ("BLOCK", CacheFormat::block(shape.head_dim) as u32));
        shape.constants().into_iter().chain(block).collect()
    }
}
