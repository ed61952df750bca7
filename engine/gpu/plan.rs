//! The numeric plan: every choice that decides the bits of a result. It is fixed per adapter and never depends on how
//! many rows run together, so that AR, VSD and PARD write the same tokens.

use super::context::GpuContext;
use crate::error::{Error, OptionName, Result};

/// Format of keys and values in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheFormat {
    /// Half precision; values beyond 65504 are clamped.
    #[default]
    F16,
    /// Single precision, twice the memory.
    F32,
    /// 8 bits and a single-precision scale for each 32 values of a head, or each 16 if its width is no multiple of 32.
    Q8_0,
}

impl CacheFormat {
    /// All of them, the default first.
    pub const ALL: [CacheFormat; 3] = [CacheFormat::F16, CacheFormat::F32, CacheFormat::Q8_0];

    /// Bytes of a row of one head, `head_dim` values.
    pub fn row_bytes(self, head_dim: usize) -> usize {
        match self {
            CacheFormat::F16 => 2 * head_dim,
            CacheFormat::F32 => 4 * head_dim,
            CacheFormat::Q8_0 => head_dim + 4 * head_dim / Self::block(head_dim),
        }
    }

    /// Values that share a scale in [`CacheFormat::Q8_0`], for heads that are `head_dim` wide, a multiple of 16.
    pub fn block(head_dim: usize) -> usize {
        if head_dim.is_multiple_of(32) { 32 } else { 16 }
    }

    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            CacheFormat::F16 => "f16",
            CacheFormat::F32 => "f32",
            CacheFormat::Q8_0 => "q8_0",
        }
    }
}

/// User's choice of kernels for matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatmulChoice {
    /// Ordinary instructions in f32, which every adapter has.
    #[default]
    Plain,
    /// The adapter's matrix units.
    Cooperative,
}

/// Kernels for matrix products. All row counts take the same ones, so that a row's bits do not depend on the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatmulPath {
    /// Ordinary instructions in f32.
    #[default]
    Plain,
    /// Cooperative matrices of f16 with f32 sums; f32 values take two halves.
    Cooperative {
        /// Their side: 8 or 16.
        tile: u32,
    },
}

impl MatmulPath {
    /// Resolves `choice` on `device`.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the adapter has no such matrices.
    pub fn of(choice: MatmulChoice, device: &GpuContext) -> Result<MatmulPath> {
        match (choice, device.cooperative_tile()) {
            (MatmulChoice::Plain, _) => Ok(MatmulPath::Plain),
            (MatmulChoice::Cooperative, Some(tile)) => Ok(MatmulPath::Cooperative { tile }),
            (MatmulChoice::Cooperative, None) => Err(Error::Option {
                option: OptionName::Products,
                reason: format!(
                    "{} has no cooperative matrices of f16 with f32 sums, 16x16x16 or 8x8x8; use plain",
                    device.name()
                ),
            }),
        }
    }
}

impl std::fmt::Display for MatmulPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MatmulPath::Plain => write!(f, "plain"),
            MatmulPath::Cooperative { tile } => write!(f, "cooperative {tile}x{tile}x{tile}"),
        }
    }
}

/// User's choice of kernels for quantised weights, where products are plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuantisedChoice {
    /// Weights are widened to f32, and x stays as it is.
    Float,
    /// x is rounded to 16 bits, relative to the largest of 32 neighbours. Of SmolLM2-135M that moves logits by 1.1e-4 of
    /// their norm, 3.4e-4 at the worst position: a sixth of what rounding x to half precision does.
    Integer16,
    /// x is rounded to 8 bits, as llama.cpp does it: 3e-2 of the norm, 1e-1 at the worst position.
    Integer8,
    /// [`QuantisedChoice::Integer16`] where the adapter is known to multiply bytes in one instruction and products are
    /// plain, [`QuantisedChoice::Float`] elsewhere.
    #[default]
    Auto,
}

/// Kernels that multiply quantised weights by the rows of a round, where products are plain. Prompts take floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuantisedProducts {
    /// Ordinary instructions in f32.
    #[default]
    Float,
    /// Dot products of bytes, added up as integers for each 32 weights.
    Integer {
        /// Signed bytes that a value of x is rounded to: 2 or 1.
        planes: u32,
    },
}

impl QuantisedProducts {
    /// Resolves `choice` on `device` beside `products`.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if integers are asked for and `products` are cooperative, which take all formats alike.
    pub fn of(choice: QuantisedChoice, products: MatmulPath, device: &GpuContext) -> Result<QuantisedProducts> {
        let is_plain = products == MatmulPath::Plain;
        let planes = match choice {
            QuantisedChoice::Float => return Ok(QuantisedProducts::Float),
            QuantisedChoice::Auto if !is_plain || !device.has_integer_dot_products() => {
                return Ok(QuantisedProducts::Float);
            }
            QuantisedChoice::Auto | QuantisedChoice::Integer16 => 2,
            QuantisedChoice::Integer8 => 1,
        };
        if !is_plain {
            let reason =
                format!("products are {products}, which multiply quantised weights as all others; use plain ones");
            return Err(Error::Option { option: OptionName::Quantised, reason });
        }
        Ok(QuantisedProducts::Integer { planes })
    }
}

impl std::fmt::Display for QuantisedProducts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            QuantisedProducts::Float => write!(f, "floats"),
            QuantisedProducts::Integer { planes } => write!(f, "integers of {} bits", 8 * planes),
        }
    }
}

/// The choices that decide the bits of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelPlan {
    /// Weight rows that lie interleaved in memory, one per lane: the width of a subgroup.
    pub lanes: u32,
    /// Parts into which a dot product is cut; they are summed in order. More parts keep a wide GPU busy with few rows. A
    /// matrix of few rows is cut into more ([`KernelPlan::slices_of`]).
    pub slices: u32,
    /// Keys per part of an attention row; the parts lie at fixed absolute positions.
    pub key_split: u32,
    /// Format of keys and values in the cache.
    pub cache: CacheFormat,
    /// Kernels for matrix products.
    pub products: MatmulPath,
    /// Kernels for quantised weights, where products are plain.
    pub quantised: QuantisedProducts,
}

/// [`KernelPlan::key_block`] of a GPU: 33 MB of parts for 32 rows of an 8B model at 32768 keys.
const GPU_KEY_BLOCK: u32 = 512;
/// Invocations of a product that keep a large GPU busy: 256 for each of 128 cores.
const BUSY_INVOCATIONS: u32 = 1 << 15;
/// Invocations of a workgroup, at most: more leave a lane too few registers for its sums.
const MAX_WORKGROUP: u32 = 512;

impl KernelPlan {
    /// The plan for `device`'s class of adapter.
    pub(super) fn for_device(device: &GpuContext) -> KernelPlan {
        let software = device.is_software();
        // All lanes of a subgroup are to share a value of x, whatever size the driver chooses.
        let lanes = match device.subgroup_sizes() {
            _ if software => 8,
            Some((_, 64)) => 64,
            _ => 32,
        };
        KernelPlan {
            lanes,
            slices: if software { 1 } else { 256 / lanes },
            // One row of a thousand keys is to make some hundred workgroups on a GPU.
            key_split: if software { 256 } else { 64 },
            cache: CacheFormat::F16,
            products: MatmulPath::Plain,
            quantised: QuantisedProducts::Float,
        }
    }

    /// Keys of an attention row whose parts are merged before those of the next ones; they too lie at fixed absolute
    /// positions. On a GPU a workgroup may walk so many in place of a part, where there are workgroups enough.
    pub fn key_block(&self) -> u32 {
        if self.is_for_gpu() { self.key_split.max(GPU_KEY_BLOCK) } else { self.key_split }
    }

    /// Returns `true` for a plan of GPUs, which have many lanes to fill and hide memory latency behind loads in flight.
    pub(crate) fn is_for_gpu(&self) -> bool {
        self.slices > 1
    }

    /// Parts into which the dot products of a matrix of `weight_rows` rows are cut on `device`: [`KernelPlan::slices`],
    /// and twice as many as long as the product has too few invocations to keep a large GPU busy. One stays one.
    pub fn slices_of(&self, device: &GpuContext, weight_rows: usize) -> u32 {
        let columns = weight_rows.next_multiple_of(self.lanes as usize) as u64;
        let most = device.largest_workgroup().min(MAX_WORKGROUP) / self.lanes;
        let mut slices = self.slices;
        while slices > 1 && 2 * slices <= most && columns * u64::from(slices) < u64::from(BUSY_INVOCATIONS) {
            slices *= 2;
        }
        slices
    }
}

impl std::fmt::Display for KernelPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let KernelPlan { lanes, slices, key_split, cache, products, quantised } = self;
        write!(f, "{products}, ")?;
        if *quantised != QuantisedProducts::Float {
            write!(f, "{quantised} for quantised weights, ")?;
        }
        write!(f, "{lanes} lanes, {slices} slices, keys split at {key_split}, {} cache", cache.name())
    }
}
