//! Variants of the row kernel: how a product of few rows is laid on the device. They differ in time and in no rounding, so
//! that each number of rows may have its own; which is fastest depends on adapter, driver and shape.

use super::MOST_ROWS;
use super::matrix::MOST_BLOCKS;
use crate::gpu::Device;

/// How one number of rows is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Variant {
    /// Rows in registers at once; more rows take several turns.
    pub rows: u32,
    /// Weight rows per lane.
    pub blocks: u32,
    /// Whether the rows are read as a uniform, where they fit one.
    pub uniform: bool,
}

/// The variant for 1, 2, .. 32 rows.
pub type Variants = [Variant; MOST_ROWS];

impl Variant {
    /// What serves adapters of the device's class where nothing was measured. `pair` weight rows make an output.
    pub fn defaults(device: &Device, pair: u32) -> Variants {
        let software = device.is_software();
        std::array::from_fn(|index| {
            let rows = index as u32 + 1;
            if software {
                // A CPU pays for every row, and has registers for about 16.
                let rows = if rows > 16 { rows.div_ceil(2) } else { rows };
                return Variant { rows, blocks: MOST_BLOCKS as u32, uniform: true };
            }
            // A GPU hides surplus rows behind memory; one row alone wants many workgroups instead.
            let blocks = if (2..=16).contains(&rows) { MOST_BLOCKS as u32 } else { pair };
            Variant { rows: rows.next_power_of_two(), blocks, uniform: false }
        })
    }

    /// All that are worth trying for `rows` rows.
    pub fn candidates(device: &Device, rows: usize, pair: u32) -> Vec<Variant> {
        let rows = rows as u32;
        let mut in_registers = vec![rows, rows.next_power_of_two(), rows.div_ceil(2), rows.div_ceil(4)];
        in_registers.retain(|&held| held > 0 && (held >= 4 || held >= rows));
        in_registers.sort_unstable();
        in_registers.dedup();
        let uniforms: &[bool] = if device.is_software() { &[false, true] } else { &[false] };
        let mut candidates = Vec::new();
        for rows in in_registers {
            for blocks in [1, 2, 4].into_iter().filter(|&blocks| blocks >= pair) {
                candidates.extend(uniforms.iter().map(|&uniform| Variant { rows, blocks, uniform }));
            }
        }
        candidates
    }
}
