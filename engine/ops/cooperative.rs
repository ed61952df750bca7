//! The matrix product by cooperative matrices, shaders/kernels/matmul_cooperative.wgsl, for [`super::Matmul`].
//! One kernel serves every row count and prompts as well. Only the share of a workgroup varies, which changes
//! no bit: only the matrices' side, a part of the plan, and [`CHUNK`] do.

use std::sync::{Arc, OnceLock};

use super::matrix::Matrix;
use super::row_range::RowRange;
use super::{MAX_ROWS, Phase};
use crate::error::Result;
use crate::formats::{PIECE, WeightFormat};
use crate::gpu::{Device, Kernel, KernelPlan, MatmulPath};

/// Columns that are summed up in the matrix unit, under one scale, before f32 takes over: eight pieces, whose scale eight
/// invocations find among themselves.
const CHUNK: u32 = 8 * PIECE as u32;
/// Weight rows of one workgroup; where two make an output, half of them are gates.
const OUTS: u32 = 32;
/// Rows of a prompt in one workgroup.
const PROMPT_ROWS: u32 = 32;

/// The kernels of one product.
pub(super) struct Cooperative {
    device: Device,
    tile: u32,
    lanes: u32,
    /// Weight rows of an output.
    pair: u32,
    /// f16 values that one weight takes.
    weight_halves: u32,
    /// Files that read the weights and finish a sum.
    files: Vec<&'static str>,
    row_set: RowRange,
    /// By tiles of rows.
    row_kernels: [OnceLock<Arc<Kernel>>; MAX_ROWS / 8],
    prompt_kernel: OnceLock<Arc<Kernel>>,
}

/// Share of a product that one workgroup computes.
#[derive(Clone, Copy)]
struct Share {
    /// Tiles of x rows, and of weight rows.
    row_tiles: u32,
    out_tiles: u32,
    /// Chunks in workgroup memory at a time.
    parts: u32,
    threads: u32,
}

impl Cooperative {
    /// For the parts of `weights` that have this format; `None` if the plan's products are plain. `finish` is the file that
    /// says what becomes of a sum.
    pub fn new(
        device: &Device,
        plan: &KernelPlan,
        weights: &Matrix,
        format: WeightFormat,
        finish: &'static str,
        row_set: RowRange,
    ) -> Option<Cooperative> {
        let MatmulPath::Cooperative { tile } = plan.products else { return None };
        Some(Cooperative {
            device: device.clone(),
            tile,
            lanes: weights.lanes(),
            pair: weights.pair(),
            weight_halves: if matches!(format, WeightFormat::Bf16 | WeightFormat::F16) { 1 } else { 2 },
            files: [format.shaders(), &[finish]].concat(),

            row_set,
            row_kernels: Default::default(),
            prompt_kernel: OnceLock::new(),
        })
    }

    /// The kernel for `rows` rows, the outputs of one of its workgroups, and its workgroups over rows of x.
    pub fn variant(&self, role: Phase, rows: usize) -> Result<(Arc<Kernel>, u32, u32)> {
        let share = self.share(role, rows);
        let row_groups = (rows as u32).div_ceil(share.row_tiles * self.tile);
        Ok((self.kernel(role, rows)?, share.out_tiles * self.tile / self.pair, row_groups))
    }

    /// The kernel for `rows` rows, compiled on first use.
    pub fn kernel(&self, role: Phase, rows: usize) -> Result<Arc<Kernel>> {
        let share = self.share(role, rows);
        let slot = match role {
            Phase::Decode => &self.row_kernels[share.row_tiles as usize - 1],
            Phase::Prefill => &self.prompt_kernel,
        };
        if let Some(kernel) = slot.get() {
            return Ok(kernel.clone());
        }
        let tile = if self.tile == 16 { "cooperative/tile_16" } else { "cooperative/tile_8" };
        let shared = ["shared/matmul", "shared/eight", "shared/step", "shared/weight", "input/storage"];
        let files = [&["matmul_cooperative", tile][..], &shared, &self.files].concat();
        let constants = [
            ("ROW_TILES", share.row_tiles),
            ("OUT_TILES", share.out_tiles),
            ("CHUNK", CHUNK),
            ("PARTS", share.parts),
            ("THREADS", share.threads),
            ("LANES", self.lanes),
            ("PAIR", self.pair),
            ("WEIGHT_HALVES", self.weight_halves),
            self.row_set.constant(),
        ];
        let kernel = self.device.kernel(&files, &constants)?;
        Ok(slot.get_or_init(|| kernel).clone())
    }

    fn share(&self, role: Phase, rows: usize) -> Share {
        let row_tiles = match role {
            Phase::Decode => (rows as u32).div_ceil(self.tile).max(1),
            Phase::Prefill => PROMPT_ROWS / self.tile,
        };
        let mut share = Share { row_tiles, out_tiles: OUTS / self.tile, parts: 1, threads: 32 };
        // A software adapter's invocations take turns; a GPU's hide each other's waits for memory.
        if self.device.is_software() {
            return share;
        }
        for parts in [2, 4] {
            let more = Share { parts, ..share };
            if self.workgroup_bytes(more) <= self.device.workgroup_memory() {
                share = more;
            }
        }
        // All invocations stage equally many pieces of x.
        let staged_pieces = share.row_tiles * self.tile * share.parts * (CHUNK / PIECE as u32);
        Share { threads: if staged_pieces.is_multiple_of(128) { 128 } else { 64 }, ..share }
    }

    /// Workgroup memory that the shader declares.
    fn workgroup_bytes(&self, share: Share) -> u32 {
        let (rows, outs) = (share.row_tiles * self.tile, share.out_tiles * self.tile);
        let halves = 2 * rows + self.weight_halves * outs;
        share.parts * (halves * (CHUNK + 8) * 2 + rows * outs * 4 + rows * 8)
    }
}
