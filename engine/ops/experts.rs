//! A feed-forward layer that is a mixture of experts: shaders/kernels/expert_route.wgsl and expert_groups.wgsl,
//! matmul_experts.wgsl, expert_sum.wgsl. All numbers of rows take the same kernels, and a row's bits do not depend on the rows
//! beside it. Products are plain and in floats, whatever the plan has for other matrices.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Tensor;
use super::expert_matrix::ExpertMatrix;
use super::matmul::{fold, row_constants, run_of};
use super::matrix::Part;
use super::variant::Variant;
use crate::error::{Error, Result};
use crate::formats::{PIECE, WeightFormat};
use crate::gpu::{Buffer, Device, Dispatch, Kernel, KernelPlan, Pass, Work};

/// Most experts of a layer: a row's scores lie in workgroup memory.
pub const MAX_EXPERTS: usize = 512;
/// Lanes that choose experts and group pairs on a GPU, each for some of the experts.
const LANES: u32 = 128;

/// A mixture: its experts, and how many of them each row takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixture {
    /// Experts, [`MAX_EXPERTS`] at most.
    pub count: usize,
    /// Experts of a row.
    pub used: usize,
}

impl Mixture {
    /// Distinct experts that `rows` rows take, on average, if each row takes any with the same chance:
    /// `count · (1 - (1 - used / count)^rows)`.
    pub fn distinct(&self, rows: usize) -> f64 {
        let Mixture { count, used } = *self;
        count as f64 * (1.0 - (1.0 - used as f64 / count as f64).powi(rows as i32))
    }

    /// Pairs of an expert that are multiplied at a time, for a pass of `rows` rows: a power of two. A GPU, which waits for
    /// weights, has room for half as many again as the mean, as rows do not take all experts with the same chance.
    fn group(&self, device: &Device, rows: usize) -> usize {
        let mean = (rows * self.used) as f64 / self.distinct(rows);
        let (most, pairs) = if device.is_software() { (8, mean.round()) } else { (16, 1.5 * mean) };
        (pairs as usize).next_power_of_two().min(most)
    }

    /// Groups of `group` pairs that `rows` rows make at most.
    fn groups(&self, rows: usize, group: usize) -> usize {
        let pairs = rows * self.used;
        pairs.min(self.count + pairs / group)
    }
}

/// Experts of the rows of a pass, on the device.
pub struct Routing {
    mixture: Mixture,
    rows: usize,
    /// `[rows, used]` of u32.
    chosen: Buffer,
    /// `[rows, used]` of f32.
    shares: Buffer,
    /// The pairs of a row and one of its experts, by expert.
    order: Buffer,
    groups: Buffer,
}

impl Routing {
    /// Room for `rows` rows.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if a row takes no expert or more than there are, or there are more than [`MAX_EXPERTS`]; as
    /// [`Buffer::storage`].
    pub fn new(device: &Device, mixture: Mixture, rows: usize) -> Result<Routing> {
        let Mixture { count, used } = mixture;
        if used == 0 || used > count || count > MAX_EXPERTS {
            let expected = vec![count.clamp(1, MAX_EXPERTS), used.clamp(1, count.max(1))];
            return Err(Error::Shape { op: "expert_route", tensor: "experts", got: vec![count, used], expected });
        }
        let words = |label, words: usize| Buffer::storage(device, label, (4 * words * rows * used) as u64);
        Ok(Routing {
            mixture,
            rows,
            chosen: words("chosen experts", 1)?,
            shares: words("shares of experts", 1)?,
            order: words("order of pairs", 1)?,
            groups: words("groups of pairs", GROUP_WORDS)?,
        })
    }

    /// Device memory for `rows` rows.
    pub fn bytes(mixture: Mixture, rows: usize) -> u64 {
        (4 * (3 + GROUP_WORDS) * rows * mixture.used) as u64
    }

    /// The chosen experts, `[rows, used]` of u32.
    pub fn chosen(&self) -> &Buffer {
        &self.chosen
    }

    /// Their shares, `[rows, used]` of f32.
    pub fn shares(&self) -> &Buffer {
        &self.shares
    }

    fn constants(&self) -> [(&'static str, u32); 2] {
        [("EXPERTS", self.mixture.count as u32), ("TOP", self.mixture.used as u32)]
    }
}

/// Words of a group, as shaders/shared/expert_group.wgsl lays it out.
const GROUP_WORDS: usize = 3;

/// The choice of experts, with its operands bound.
pub struct ExpertRoute {
    device: Device,
    route: Dispatch,
    groups: Dispatch,
    lanes: u32,
    mixture: Mixture,
    constants: [(&'static str, u32); 2],
}

impl ExpertRoute {
    /// Chooses the experts of each row, those of its highest scores, the lowest index first among equals. The share of one is
    /// `exp(score)` over the sum of `exp(score)` of all experts; of the chosen ones alone if `normalised`.
    ///
    /// Shapes: `scores` is `[rows, experts]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    /// Source: arXiv:1701.06538.
    pub fn new(
        device: &Device,
        step: &Buffer,
        scores: &Tensor,
        routing: &Routing,
        normalised: bool,
    ) -> Result<ExpertRoute> {
        scores.expect("expert_route", "scores", routing.rows, routing.mixture.count)?;
        // A CPU's barriers cost more than the work they would share out.
        let lanes = if device.is_software() { 8 } else { LANES };
        let constants = routing.constants();
        let own = [("LANES", lanes), ("NORMALISED", normalised.into())];
        let kernel = device.kernel(&["expert_route", "shared/reduce"], &[&constants[..], &own].concat())?;
        let route = kernel.dispatch(device, &[&scores.buffer, &routing.chosen, &routing.shares], [1, 1, 1])?;
        let kernel = groups_kernel(device, &constants, lanes, 1)?;
        let operands = [step, &routing.chosen, &routing.order, &routing.groups];
        let groups = kernel.dispatch(device, &operands, [1, 1, 1])?;
        Ok(ExpertRoute { device: device.clone(), route, groups, lanes, mixture: routing.mixture, constants })
    }

    /// Records the choice for the `rows` rows of a pass.
    ///
    /// # Errors
    ///
    /// [`Error::Compile`] if a kernel does not compile.
    pub fn encode(&self, pass: &mut Pass, rows: usize) -> Result<()> {
        let Mixture { count, used } = self.mixture;
        let work = Work::of(rows, [1, count], 4 * rows * (count + 2 * used), rows * used * count);
        self.route.encode_over(pass, [rows as u32, 1, 1], work);
        let kernel = groups_kernel(&self.device, &self.constants, self.lanes, self.mixture.group(&self.device, rows))?;
        let pairs = rows * used;
        let work = Work::of(rows, [1, count], 4 * (2 + GROUP_WORDS) * pairs, 2 * pairs * count);
        self.groups.encode_with(pass, &kernel, [1, 1, 1], work);
        Ok(())
    }
}

fn groups_kernel(device: &Device, constants: &[(&'static str, u32)], lanes: u32, group: usize) -> Result<Arc<Kernel>> {
    let constants = [constants, &[("LANES", lanes), ("ROWS", group as u32)]].concat();
    device.kernel(&["expert_groups", "shared/expert_group", "shared/step"], &constants)
}

/// Products of rows by the weights of their experts, with the operands bound.
pub struct ExpertMatmul {
    device: Device,
    parts: Vec<Dispatch>,
    mixture: Mixture,
    rows_out: u32,
    columns: usize,
    pair: u32,
    format: WeightFormat,
    lanes: u32,
    slices: u32,
    readers: u32,
    /// Compiled on first use.
    kernels: Mutex<HashMap<Variant, Arc<Kernel>>>,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ExpertParams {
    pieces: u32,
    rows_out: u32,
    first_out: u32,
    stride: u32,
    blocks: u32,
    first: u32,
    experts: u32,
}

impl ExpertMatmul {
    /// `y[p] = W[e] · x[r]` for the pair p of row r and an expert e; where weights are pairs, `silu(gate) · up` of their two
    /// products.
    ///
    /// Shapes: `x` is `[rows, columns]`, or `[rows · used, columns]` if each pair has a row of its own, as
    /// `of_pairs` says; `y` is `[rows · used, outputs]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    pub fn new(
        device: &Device,
        plan: &KernelPlan,
        weights: &ExpertMatrix,
        routing: &Routing,
        [x, y]: [&Tensor; 2],
        of_pairs: bool,
    ) -> Result<ExpertMatmul> {
        let (mixture, sizes, lanes) = (routing.mixture, weights.sizes, weights.lanes);
        let pairs = routing.rows * mixture.used;
        x.expect("matmul_experts", "x", if of_pairs { pairs } else { routing.rows }, sizes.columns)?;
        y.expect("matmul_experts", "y", pairs, sizes.outputs)?;
        if sizes.count != mixture.count {
            let [got, expected] = [sizes.count, mixture.count].map(|count| vec![count, sizes.rows(), sizes.columns]);
            return Err(Error::Shape { op: "matmul_experts", tensor: "weights", got, expected });
        }
        let mut op = ExpertMatmul {
            device: device.clone(),
            parts: Vec::new(),
            mixture,
            rows_out: sizes.outputs as u32,
            columns: sizes.columns,
            pair: sizes.pair as u32,
            format: weights.format,
            lanes,
            slices: plan.slices_of(device, mixture.used * sizes.rows()),
            readers: if of_pairs { 1 } else { mixture.used as u32 },
            kernels: Mutex::default(),
        };
        let kernel = op.kernel(op.variant(1))?;
        let expert_rows = weights.blocks() * lanes;
        let bind = |part: &Part| {
            let params = ExpertParams {
                pieces: (sizes.columns / PIECE) as u32,
                rows_out: op.rows_out,
                first_out: 0,
                stride: op.rows_out,
                blocks: weights.blocks(),
                first: part.first as u32 / expert_rows,
                experts: part.outputs as u32 / expert_rows,
            };
            let params = Buffer::uniform(device, "matmul_experts params", &params)?;
            let operands = [&params, &routing.groups, &part.buffer, &x.buffer, &y.buffer, &routing.order];
            kernel.dispatch(device, &operands, [1, 1, 1])
        };
        op.parts = weights.parts.iter().map(bind).collect::<Result<_>>()?;
        Ok(op)
    }

    /// Records the products of the `rows` rows of a pass.
    ///
    /// # Errors
    ///
    /// [`Error::Compile`] if a kernel does not compile.
    pub fn encode(&self, pass: &mut Pass, rows: usize) -> Result<()> {
        let variant = self.variant(rows);
        let kernel = self.kernel(variant)?;
        let groups = self.mixture.groups(rows, variant.rows as usize) as u32;
        let [y, z] = fold(self.rows_out.div_ceil(self.lanes).div_ceil(variant.blocks / self.pair));
        for part in &self.parts {
            part.encode_with(pass, &kernel, [groups, y, z], self.work(rows));
        }
        Ok(())
    }

    /// The variant for a pass of `rows` rows.
    fn variant(&self, rows: usize) -> Variant {
        let weight_rows = self.mixture.distinct(rows) * f64::from(self.rows_out * self.pair);
        let group = self.mixture.group(&self.device, rows) as u32;
        Variant::of_group(&self.device, [self.lanes, self.slices], group, weight_rows as usize, self.pair)
    }

    /// Work of multiplying `rows` rows by the experts of one part, if they take all experts evenly.
    fn work(&self, rows: usize) -> Work {
        let (pairs, parts) = (rows * self.mixture.used, self.parts.len());
        let weight_rows = (self.rows_out * self.pair) as usize;
        let weight_bytes = self.mixture.distinct(rows) * (weight_rows * self.format.row_bytes(self.columns)) as f64;
        let bytes = weight_bytes as usize + 4 * pairs * (self.columns + self.rows_out as usize);
        let flops = 2 * pairs * weight_rows * self.columns;
        Work::of(rows, [weight_rows, self.columns], bytes / parts, flops / parts).stored()
    }

    fn kernel(&self, variant: Variant) -> Result<Arc<Kernel>> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(&variant) {
            return Ok(kernel.clone());
        }
        let slice = if self.device.has_uniform_slices(self.lanes) { "slice/subgroup" } else { "slice/invocation" };
        let finish = if self.pair == 2 { "epilogue/swiglu" } else { "epilogue/store" };
        let own = ["matmul_experts", slice, "input/storage", "shared/row_products", "shared/slice_sums"];
        let shared = ["shared/expert_group", "shared/ahead", "shared/eight"];
        let files = [&own[..], &shared, self.format.shaders(), &[finish]].concat();
        let run = run_of(self.format, self.columns, self.slices);
        let constants = row_constants(self.format, run, [self.lanes, self.slices, self.pair], variant);
        let [chunk_pieces, chunk_words] = self.format.chunk_pieces().map(|count| count as u32);
        let own = [("READERS", self.readers), ("CHUNK_PIECES", chunk_pieces), ("CHUNK_WORDS", chunk_words)];
        let kernel = self.device.kernel(&files, &[&constants[..], &own].concat())?;
        kernels.insert(variant, kernel.clone());
        Ok(kernel)
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ExpertSumParams {
    pieces: u32,
}

/// The sum of what a row's experts make of it, with its operands bound.
pub struct ExpertSum {
    dispatch: Dispatch,
    used: usize,
    width: usize,
}

impl ExpertSum {
    /// `hidden[r] += Σ share[r, c] · y[r · used + c]` over the choices c of row r, from the highest share on.
    ///
    /// Shapes: `y` is `[rows · used, width]`, `hidden` is `[rows, width]`; `width` is a multiple of 4.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    pub fn new(device: &Device, routing: &Routing, [y, hidden]: [&Tensor; 2]) -> Result<ExpertSum> {
        let (used, width) = (routing.mixture.used, hidden.width);
        y.expect("expert_sum", "y", routing.rows * used, width.next_multiple_of(4))?;
        hidden.expect("expert_sum", "hidden", routing.rows, width)?;
        let kernel = device.kernel(&["expert_sum"], &[("TOP", used as u32)])?;
        let params = ExpertSumParams { pieces: (width / 4) as u32 };
        let params = Buffer::uniform(device, "expert_sum params", &params)?;
        let dispatch = kernel.dispatch(device, &[&params, &routing.shares, &y.buffer, &hidden.buffer], [1, 1, 1])?;
        Ok(ExpertSum { dispatch, used, width })
    }

    /// Records the sum for `rows` rows.
    pub fn encode(&self, pass: &mut Pass, rows: usize) {
        let values = rows * self.width;
        let work = Work::of(rows, [1, self.width], 4 * values * (self.used + 2), 2 * values * self.used);
        self.dispatch.encode_over(pass, [(self.width / 4).div_ceil(64) as u32, rows as u32, 1], work);
    }
}
