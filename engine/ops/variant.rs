//! Variants of the row kernel: how a product of few rows is laid on the device. They differ in time and in no rounding, so
//! that each number of rows may have its own; which is fastest depends on adapter, driver and shape.

use super::MAX_ROWS;
use super::weight_layout::max_blocks;
use crate::gpu::Device;

/// Kernel variant for one number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Variant {
    /// Rows in registers at once; more rows take several turns.
    pub rows: u32,
    /// Weight rows per lane.
    pub blocks: u32,
    /// `true` if the rows are read as a uniform, where they fit one.
    pub uniform: bool,
    /// `true` if the next weights are loaded while those before them are multiplied.
    pub ahead: bool,
}

/// Sums that a lane of a GPU keeps in registers beside the weights that are on their way, and the most that are worth
/// trying.
const REGISTER_SUMS: u32 = 26;
const MAX_SUMS: u32 = 2 * REGISTER_SUMS;

/// Rows that share a load of weights, at least, where more turns would keep more cores busy.
const MIN_ROWS: u32 = 4;

/// The variant for 1, 2, .. 32 rows.
pub type Variants = [Variant; MAX_ROWS];

impl Variant {
    /// The variants where nothing was measured, under a plan of `lanes` and `slices`: for a matrix of `weight_rows` rows, of
    /// which `pair` make an output.
    pub fn defaults(device: &Device, [lanes, slices]: [u32; 2], weight_rows: usize, pair: u32) -> Variants {
        let most = max_blocks(lanes as usize) as u32;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::array::from_fn(|index| {
            let rows = index as u32 + 1;
            if is_for_cpu(slices) {
                // A CPU pays for every row, has registers for about 16, and wants workgroups for all its cores.
                let is_fed = weight_rows >= 4 * cores * (lanes * most) as usize;
                let blocks = if rows <= 8 && is_fed { most } else { most.min(4) };
                let rows = if rows > 16 { rows.div_ceil(2) } else { rows };
                return Variant { rows, blocks, uniform: true, ahead: true };
            }
            // A GPU has registers for the sums of 16 rows; weights that a second turn reads again are in its cache. A small
            // matrix leaves most cores idle: there its few rows take more turns, side by side.
            let (groups, busy) = (weight_rows as u32 / (lanes * pair), device.busy_workgroups());
            let mut turns = rows.div_ceil(16);
            while groups <= busy / 4 && groups * turns < busy / 2 && rows.div_ceil(turns + 1) >= MIN_ROWS {
                turns += 1;
            }
            let rows = rows.div_ceil(turns);
            let blocks = if index == 0 { pair } else { Variant::gpu_blocks(device, lanes, rows, weight_rows, pair) };
            Variant { rows, blocks, uniform: false, ahead: true }
        })
    }

    /// The weight rows of a lane of a GPU beside `rows` rows, of `weight_rows` that are multiplied. They share the loads of x,
    /// of which one row has few, and may cost no core its work.
    fn gpu_blocks(device: &Device, lanes: u32, rows: u32, weight_rows: usize, pair: u32) -> u32 {
        let enough = |blocks: &u32| {
            rows * blocks <= REGISTER_SUMS && weight_rows as u32 / (lanes * blocks) >= device.busy_workgroups()
        };
        Variant::block_counts(lanes, pair).into_iter().rev().find(enough).unwrap_or(pair)
    }

    /// The variant for groups of `rows` rows, each by the weights of an expert, which take `weight_rows` rows of weights
    /// together.
    pub(super) fn of_group(
        device: &Device,
        [lanes, slices]: [u32; 2],
        rows: u32,
        weight_rows: usize,
        pair: u32,
    ) -> Variant {
        let blocks = match (is_for_cpu(slices), rows) {
            (true, _) => max_blocks(lanes as usize) as u32,
            (false, 1) => pair,
            (false, _) => Variant::gpu_blocks(device, lanes, rows, weight_rows, pair),
        };
        Variant { rows, blocks, uniform: false, ahead: true }
    }

    /// The numbers of weight rows per lane that there are kernels for.
    pub fn block_counts(lanes: u32, pair: u32) -> Vec<u32> {
        let most = max_blocks(lanes as usize) as u32;
        [1, 2, 4, 8].into_iter().filter(|blocks| (pair..=most).contains(blocks)).collect()
    }

    /// All that are worth trying for `rows` rows of x, under a plan of `lanes` and `slices`.
    pub fn candidates([lanes, slices]: [u32; 2], rows: usize, pair: u32) -> Vec<Variant> {
        let rows = rows as u32;
        let mut in_registers = match is_for_cpu(slices) {
            true => vec![rows, rows.next_power_of_two(), rows.div_ceil(2), rows.div_ceil(4)],
            false => vec![rows, rows.div_ceil(2), rows.div_ceil(4)],
        };
        in_registers.retain(|&held| held > 0 && (held >= 4 || held >= rows));
        in_registers.sort_unstable();
        in_registers.dedup();
        // A CPU gains nothing by many small workgroups, a GPU nothing by uniforms.
        let (reads, fewest): (&[[bool; 2]], u32) = match is_for_cpu(slices) {
            true => (&[[true, true], [true, false], [false, true]], 2),
            false => (&[[false, true], [false, false]], 1),
        };
        let mut candidates = Vec::new();
        for rows in in_registers {
            let fits = |blocks: &u32| {
                *blocks >= fewest && (is_for_cpu(slices) || *blocks == pair || rows * blocks <= MAX_SUMS)
            };
            for blocks in Variant::block_counts(lanes, pair).into_iter().filter(fits) {
                candidates.extend(reads.iter().map(|&[uniform, ahead]| Variant { rows, blocks, uniform, ahead }));
            }
        }
        candidates
    }
}

/// Returns `true` if a plan of `slices` is for a CPU, which gains nothing by cutting a sum.
fn is_for_cpu(slices: u32) -> bool {
    slices == 1
}
