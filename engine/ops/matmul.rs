//! `y[m] = W · x[m]`: shaders/matmul_rows.wgsl for up to 32 rows, shaders/matmul_tile.wgsl for prompts.
//! A plan of cooperative products has one kernel for both, in engine/ops/cooperative.rs.
//! Which of the two a row meets depends on its role, never on how many rows there are; the row kernels' variants differ
//! in how many rows and weights they hold in registers, and not in a single rounding.

use std::sync::{Arc, OnceLock};

use super::cooperative::Cooperative;
use super::matrix::{MOST_BLOCKS, Matrix, PIECE};
use super::{MOST_ROWS, Role, Tensor, expect_len};
use crate::error::Result;
use crate::gpu::{Buffer, Device, Dispatch, Kernel, Pass, Plan, Work};

/// What becomes of a finished dot product.
#[derive(Clone, Copy)]
pub enum Finish<'a> {
    /// It is stored.
    Store,
    /// It is added to what the output holds: the residual stream.
    Add,
    /// It is stored with a bias, one for each weight row.
    Bias(&'a [f32]),
}

/// Which count of the step says how many rows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowSet {
    /// `step.rows`.
    All,
    /// `step.outputs`: the rows whose next token is wanted.
    Outputs,
}

impl RowSet {
    pub(super) fn constant(self) -> (&'static str, u32) {
        ("OUTPUT_ROWS", u32::from(self == RowSet::Outputs))
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct MatmulParams {
    pieces: u32,
    rows_out: u32,
    first_out: u32,
    stride: u32,
}

/// A matrix with its input and output bound.
pub struct Matmul {
    device: Device,
    /// A dispatch for each part of the matrix, and the part's weight rows.
    parts: Vec<(Dispatch, u32)>,
    /// The variants for 1..=32 rows, compiled on first use, and the tile kernel.
    row_kernels: [OnceLock<Arc<Kernel>>; MOST_ROWS],
    tile_kernel: OnceLock<Arc<Kernel>>,
    /// The formats' pieces: how weights are read, and what becomes of a sum.
    files: [&'static str; 2],
    columns: usize,
    weight_bytes: usize,
    lanes: u32,
    slices: u32,
    row_set: RowSet,
    /// Takes the place of all of these kernels where the plan says so.
    cooperative: Option<Cooperative>,
}

impl Matmul {
    /// `y[m] = W · x[m]`, finished as `finish` says.
    ///
    /// Shapes: `x` is `[rows, columns]`, `y` is `[rows, rows of W]`, both with room for whatever is encoded.
    /// Errors: [`crate::Error::Shape`] if they do not fit.
    pub fn new(
        device: &Device,
        plan: &Plan,
        step: &Buffer,
        weights: &Matrix,
        [x, y]: [&Tensor; 2],
        finish: Finish,
        row_set: RowSet,
    ) -> Result<Matmul> {
        x.expect("matmul", "x", MOST_ROWS, weights.columns())?;
        y.expect("matmul", "y", MOST_ROWS, weights.rows())?;
        let (finish, bias) = match finish {
            Finish::Store => ("finish/store", None),
            Finish::Add => ("finish/add", None),
            Finish::Bias(bias) => {
                expect_len("matmul", "bias", bias, weights.rows())?;
                ("finish/bias", Some(Buffer::with_values(device, "bias", bias)?))
            }
        };
        let mut op = Matmul {
            device: device.clone(),
            parts: Vec::new(),
            row_kernels: Default::default(),
            tile_kernel: OnceLock::new(),
            files: [weights.format().file(), finish],
            columns: weights.columns(),
            weight_bytes: weights.format().bytes(),
            lanes: weights.lanes(),
            slices: plan.slices,
            row_set,
            cooperative: Cooperative::new(device, plan, weights, finish, row_set),
        };
        // All variants have the same bindings; any of them can make the bind group.
        let kernel = match &op.cooperative {
            None => op.row_kernel(1)?,
            Some(cooperative) => cooperative.kernel(Role::Round, 1)?,
        };
        for ((buffer, first, rows), scales) in weights.parts().zip(weights.scales()) {
            let params = MatmulParams {
                pieces: (weights.columns() / PIECE) as u32,
                rows_out: rows as u32,
                first_out: first as u32,
                stride: weights.rows() as u32,
            };
            let params = Buffer::uniform(device, "matmul params", &params)?;
            let mut operands = vec![&params, step, buffer, &x.buffer, &y.buffer];
            operands.extend(&bias);
            operands.extend(scales);
            op.parts.push((kernel.dispatch(device, &operands, [1, 1, 1])?, rows as u32));
        }
        Ok(op)
    }

    /// Records the product for `rows` rows (of the row set), by the kernel that `role` takes.
    ///
    /// Errors: [`crate::Error::Gpu`] if a variant does not compile.
    pub fn encode(&self, pass: &mut Pass, role: Role, rows: usize) -> Result<()> {
        let (kernel, outs, depth) = match (&self.cooperative, role) {
            (Some(cooperative), _) => cooperative.variant(role, rows)?,
            (None, Role::Round) => (self.row_kernel(rows)?, self.blocks(rows) * self.lanes, 1),
            (None, Role::Prompt) => {
                let [tile_rows, tiles] = self.tile();
                let outs = MOST_BLOCKS as u32 * self.lanes;
                (self.tile_kernel()?, outs, (rows as u32).div_ceil(tile_rows * tiles))
            }
        };
        for (dispatch, rows_out) in &self.parts {
            let [x, y] = fold(rows_out.div_ceil(outs));
            dispatch.encode_with(pass, &kernel, [x, y, depth], self.work(rows, *rows_out as usize));
        }
        Ok(())
    }

    /// What the product of `rows` rows with a part of `rows_out` weight rows has to do.
    fn work(&self, rows: usize, rows_out: usize) -> Work {
        let weights = rows_out * self.columns;
        let reads_output = usize::from(self.files[1] == "finish/add");
        let bytes = weights * self.weight_bytes + 4 * rows * (self.columns + rows_out * (1 + reads_output));
        Work::of(rows, [rows_out, self.columns], bytes, 2 * rows * weights).stored()
    }

    /// Weight rows per lane: as many as the registers hold beside the rows' sums.
    fn blocks(&self, rows: usize) -> u32 {
        if self.device.is_software() || (2..=16).contains(&rows) { MOST_BLOCKS as u32 } else { 1 }
    }

    /// Rows that the variant for `rows` rows computes. A GPU hides the surplus behind memory; the CPU pays for it.
    fn bound(&self, rows: usize) -> usize {
        if self.device.is_software() { rows } else { rows.next_power_of_two() }
    }

    /// Rows of x that a lane of the tile kernel holds, and row groups in its workgroup. The CPU has no use for groups
    /// that share a cache: 16 rows in one group took 0.4 of the time of 8 in each of 4 there.
    fn tile(&self) -> [u32; 2] {
        if self.device.is_software() { [16, 1] } else { [8, 4] }
    }

    fn row_kernel(&self, rows: usize) -> Result<Arc<Kernel>> {
        let bound = self.bound(rows);
        let constants = [
            ("ROWS", bound as u32),
            ("BLOCKS", self.blocks(rows)),
            ("LANES", self.lanes),
            ("SLICES", self.slices),
            self.row_set.constant(),
        ];
        self.compiled(&self.row_kernels[bound - 1], "matmul_rows", &constants)
    }

    fn tile_kernel(&self) -> Result<Arc<Kernel>> {
        let [rows, tiles] = self.tile();
        let constants = [("ROWS", rows), ("BLOCKS", MOST_BLOCKS as u32), ("LANES", self.lanes), ("TILES", tiles)];
        self.compiled(&self.tile_kernel, "matmul_tile", &constants)
    }

    fn compiled(
        &self,
        slot: &OnceLock<Arc<Kernel>>,
        name: &'static str,
        constants: &[(&'static str, u32)],
    ) -> Result<Arc<Kernel>> {
        if let Some(kernel) = slot.get() {
            return Ok(kernel.clone());
        }
        let [weights, finish] = self.files;
        let files = [name, "shared/matmul", "shared/eight", "shared/step", weights, finish];
        let kernel = self.device.kernel(&files, constants)?;
        Ok(slot.get_or_init(|| kernel).clone())
    }
}

/// `groups` workgroups as x and y: a grid holds 65,535 in each dimension. The shader drops the surplus.
pub(super) fn fold(groups: u32) -> [u32; 2] {
    const MOST: u32 = 65_535;
    if groups <= MOST { [groups, 1] } else { [MOST, groups.div_ceil(MOST)] }
}
