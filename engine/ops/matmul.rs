//! `y[m] = W · x[m]`: shaders/kernels/matmul_rows.wgsl for up to 32 rows, shaders/kernels/matmul_tile.wgsl for prompts.
//! A plan of cooperative products has one kernel for both, in engine/ops/cooperative.rs; one of integer products has another
//! for few rows by quantised weights, in engine/ops/integer.rs.
//! Which of the two a row meets depends on its role, never on how many rows there are; the row kernels' variants differ
//! in how many rows and weights they hold in registers, and not in a single rounding. Drivers that loop over lanes to read
//! storage multiply prompts by the row kernel as well, in windows of as many rows as a uniform holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::cooperative::Cooperative;
use super::integer::Integer;
use super::matrix::Matrix;
use super::quantise_rows::QuantiseRows;
use super::row_range::RowRange;
use super::variant::{Variant, Variants};
use super::{MAX_ROWS, Phase, Tensor};
use crate::error::{Error, Result};
use crate::formats::{PIECE, WeightFormat};
use crate::gpu::{Buffer, Device, Dispatch, Kernel, KernelPlan, MatmulPath, Pass, QuantisedProducts, Work};

/// Operation on a finished dot product.
#[derive(Clone, Copy)]
pub enum Epilogue<'a> {
    /// It is stored.
    Store,
    /// It is added to what the output holds: the residual stream.
    Add,
    /// It is stored with these rows added, `[rows, outputs]`: the residual stream, kept for a backward pass.
    Residual(&'a Tensor),
    /// It is stored with a bias, `[1, outputs]`.
    Bias(&'a Tensor),
    /// `silu(gate) · up` is stored, `silu(g) = g / (1 + e^-g)`, of weights uploaded by [`Matrix::of_pair`]. Source:
    /// arXiv:2002.05202.
    Swiglu,
}

/// Rows whose variant of the row kernel takes prompts, where the tile kernel does not.
const PROMPT_ROWS: usize = 16;
/// Weight rows per lane of the tile kernel.
const TILE_BLOCKS: u32 = 4;
/// Sums in workgroup memory while the slices of the row kernel are added up: 8 KiB, so that a core keeps several
/// workgroups.
const TAIL_SUMS: u32 = 2048;
/// Loads of 16 bytes that a lane of the row kernel has in flight beside so many sums at most: what GPU compilers keep in
/// registers.
const HELD_LOADS: [(u32, u32); 3] = [(13, 8), (26, 4), (u32::MAX, 2)];

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct MatmulParams {
    pieces: u32,
    rows_out: u32,
    first_out: u32,
    stride: u32,
    first_row: u32,
}

/// A matrix with its input and output bound.
pub struct Matmul {
    device: Device,
    parts: Vec<Part>,
    /// Goes before products in integers.
    quantise: Option<QuantiseRows>,
    variants: Variants,
    /// Rows that a uniform holds.
    uniform_rows: u32,
    /// The shader file of the epilogue.
    finish: &'static str,
    columns: usize,
    lanes: u32,
    slices: u32,
    pair: u32,
    row_set: RowRange,
}

/// A part of the matrix, bound with the rows as storage, and as a uniform if any variant wants that.
struct Part {
    storage: Dispatch,
    uniform: Option<UniformRows>,
    /// Bound with the rows as integers, if those are what it is multiplied by.
    integer: Option<(Dispatch, Integer)>,
    kernels: Kernels,
    outputs: u32,
}

/// A part of the matrix, bound with a window of the rows as a uniform.
struct UniformRows {
    kernel: Arc<Kernel>,
    params: MatmulParams,
    /// All that is bound after the parameters; the rows are at [`ROWS_OPERAND`].
    operands: Vec<Buffer>,
    /// By the window's first row, bound on first use.
    windows: Mutex<HashMap<u32, Arc<Dispatch>>>,
}

/// The place of the multiplied rows among what is bound after the parameters.
const ROWS_OPERAND: usize = 2;

/// Kernels for weights of one format.
struct Kernels {
    format: WeightFormat,
    /// The row kernels by variant and the tile kernel, compiled on first use.
    rows: Mutex<HashMap<Variant, Arc<Kernel>>>,
    tile: OnceLock<Arc<Kernel>>,
    /// Takes the place of all of these where the plan says so.
    cooperative: Option<Cooperative>,
}

impl Matmul {
    /// `y[m] = W · x[m]`, finished as `finish` says.
    ///
    /// Shapes: `x` is `[rows, columns]`, `y` is `[rows, outputs of W]`, both with room for whatever is encoded.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    pub fn new(
        device: &Device,
        plan: &KernelPlan,
        step: &Buffer,
        weights: &Matrix,
        [x, y]: [&Tensor; 2],
        finish: Epilogue,
        row_set: RowRange,
    ) -> Result<Matmul> {
        x.expect("matmul", "x", MAX_ROWS, weights.columns())?;
        y.expect("matmul", "y", MAX_ROWS, weights.outputs())?;
        if (weights.pair() == 2) != matches!(finish, Epilogue::Swiglu) {
            let (got, expected) = (vec![weights.rows(), weights.columns()], vec![y.width, weights.columns()]);
            return Err(Error::Shape { op: "matmul", tensor: "weights", got, expected });
        }
        let (finish, bias) = match finish {
            Epilogue::Store => ("epilogue/store", None),
            Epilogue::Add => ("epilogue/add", None),
            Epilogue::Swiglu => ("epilogue/swiglu", None),
            Epilogue::Residual(residual) => {
                residual.expect("matmul", "residual", MAX_ROWS, weights.outputs())?;
                ("epilogue/residual", Some(&residual.buffer))
            }
            Epilogue::Bias(bias) => {
                bias.expect("matmul", "bias", 1, weights.outputs())?;
                ("epilogue/bias", Some(&bias.buffer))
            }
        };
        let mut op = Matmul {
            device: device.clone(),
            parts: Vec::new(),
            quantise: None,
            variants: *weights.variants(),
            uniform_rows: (device.largest_uniform() / (4 * weights.columns() as u64)) as u32,
            finish,
            columns: weights.columns(),
            lanes: weights.lanes(),
            slices: plan.slices_of(device, weights.rows()),
            pair: weights.pair(),
            row_set,
        };
        for part in weights.parts() {
            let kernels = Kernels {
                format: part.format,
                rows: Mutex::default(),
                tile: OnceLock::new(),
                cooperative: Cooperative::new(device, plan, weights, part.format, finish, row_set),
            };
            // All variants with the rows in the same place have the same bindings; any of them can make the bind group.
            let variant = |uniform| Variant { uniform, ..op.variants[0] };
            let integer = op.integer(plan, part.format);
            let storage = match (&kernels.cooperative, &integer) {
                (None, None) => op.row_kernel(&kernels, variant(false))?,
                (None, Some(_)) => op.tile_kernel(&kernels)?,
                (Some(cooperative), _) => cooperative.kernel(Phase::Decode, 1)?,
            };
            let reads_uniforms = kernels.cooperative.is_none() && integer.is_none() && op.uniform_rows > 0;
            let params = MatmulParams {
                pieces: (weights.columns() / PIECE) as u32,
                rows_out: part.outputs as u32,
                first_out: part.first as u32,
                stride: weights.outputs() as u32,
                first_row: 0,
            };
            let bound = Buffer::uniform(device, "matmul params", &params)?;
            let mut operands = vec![&bound, step, &part.buffer, &x.buffer, &y.buffer];
            operands.extend(bias);
            operands.extend(&part.scales);
            let storage = storage.dispatch(device, &operands, [1, 1, 1])?;
            let uniform = match reads_uniforms && op.variants.iter().any(|variant| variant.uniform) {
                true => {
                    let kernel = op.row_kernel(&kernels, variant(true))?;
                    let operands = operands[1..].iter().map(|&buffer| buffer.clone()).collect();
                    Some(UniformRows { kernel, params, operands, windows: Mutex::default() })
                }
                false => None,
            };
            let integer = match integer {
                None => None,
                Some(integer) => {
                    operands[3] = QuantiseRows::rows_of(device, x)?;
                    let kernel = integer.kernel(Integer::variant(op.variants[0]))?;
                    let dispatch = kernel.dispatch(device, &operands, [1, 1, 1])?;
                    op.quantise = Some(QuantiseRows::new(device, x, integer.planes)?);
                    Some((dispatch, integer))
                }
            };
            op.parts.push(Part { storage, uniform, integer, kernels, outputs: part.outputs as u32 });
        }
        Ok(op)
    }

    /// Hands the quantisation of x over to the operation that writes x ([`super::RmsNorm::quantising`]). Returns the signed
    /// bytes of a value, or `None` if the product multiplies floats.
    pub fn take_quantisation(&mut self) -> Option<u32> {
        self.quantise.take().map(|quantise| quantise.planes())
    }

    /// Records the product for `rows` rows (of the row set), by the kernel that `role` takes.
    ///
    /// # Errors
    ///
    /// [`Error::Compile`] if a variant does not compile.
    pub fn encode(&self, pass: &mut Pass, role: Phase, rows: usize) -> Result<()> {
        if role == Phase::Decode {
            return self.encode_as(pass, self.variants[rows.clamp(1, MAX_ROWS) - 1], rows);
        }
        self.parts.iter().try_for_each(|part| match &part.kernels.cooperative {
            Some(cooperative) => self.encode_cooperative(pass, part, cooperative, role, rows),
            None if self.device.loops_over_lanes() && part.uniform.is_some() => {
                let variant = Variant { uniform: true, ..self.variants[PROMPT_ROWS - 1] };
                self.encode_rows(pass, part, variant, rows)
            }
            None => self.encode_tile(pass, part, rows),
        })
    }

    /// Records the product for `rows` rows of a round, by `variant`; cooperative products have none, and are recorded as
    /// ever.
    ///
    /// # Errors
    ///
    /// As [`Matmul::encode`].
    pub fn encode_as(&self, pass: &mut Pass, variant: Variant, rows: usize) -> Result<()> {
        if let Some(quantise) = &self.quantise {
            quantise.encode(pass, rows);
        }
        self.parts.iter().try_for_each(|part| match (&part.kernels.cooperative, &part.integer) {
            (Some(cooperative), _) => self.encode_cooperative(pass, part, cooperative, Phase::Decode, rows),
            (None, Some((dispatch, integer))) => self.encode_integer(pass, part, (dispatch, integer), variant, rows),
            (None, None) => self.encode_rows(pass, part, variant, rows),
        })
    }

    /// The kernels of a part of `format`, if the plan multiplies it in integers.
    fn integer(&self, plan: &KernelPlan, format: WeightFormat) -> Option<Integer> {
        let QuantisedProducts::Integer { planes } = plan.quantised else { return None };
        if plan.products != MatmulPath::Plain || !format.is_quantised() {
            return None;
        }
        let Matmul { lanes, slices, pair, finish, row_set, .. } = *self;
        let (device, kernels) = (self.device.clone(), Mutex::default());
        Some(Integer { device, format, planes, lanes, slices, pair, finish, row_set, kernels })
    }

    fn encode_integer(
        &self,
        pass: &mut Pass,
        part: &Part,
        (dispatch, integer): (&Dispatch, &Integer),
        variant: Variant,
        rows: usize,
    ) -> Result<()> {
        let variant = Integer::variant(variant);
        let [y, z] = self.grid(part, variant.blocks);
        let turns = (rows as u32).div_ceil(variant.rows);
        dispatch.encode_with(pass, &*integer.kernel(variant)?, [turns, y, z], self.work(rows, part));
        Ok(())
    }

    fn encode_cooperative(
        &self,
        pass: &mut Pass,
        part: &Part,
        cooperative: &Cooperative,
        role: Phase,
        rows: usize,
    ) -> Result<()> {
        let (kernel, outputs, depth) = cooperative.variant(role, rows)?;
        let [x, y] = fold(part.outputs.div_ceil(outputs));
        part.storage.encode_with(pass, &kernel, [x, y, depth], self.work(rows, part));
        Ok(())
    }

    fn encode_tile(&self, pass: &mut Pass, part: &Part, rows: usize) -> Result<()> {
        let [tile_rows, tiles] = self.tile();
        let depth = (rows as u32).div_ceil(tile_rows * tiles);
        let [x, y] = self.grid(part, TILE_BLOCKS);
        let kernel = self.tile_kernel(&part.kernels)?;
        part.storage.encode_with(pass, &kernel, [x, y, depth], self.work(rows, part));
        Ok(())
    }

    fn encode_rows(&self, pass: &mut Pass, part: &Part, variant: Variant, rows: usize) -> Result<()> {
        let [y, z] = self.grid(part, variant.blocks);
        let windows = part.uniform.as_ref().and_then(|uniform| Some((uniform, self.windows(uniform, variant, rows)?)));
        let Some((uniform, (variant, window))) = windows else {
            let variant = Variant { uniform: false, ..variant };
            let kernel = self.row_kernel(&part.kernels, variant)?;
            let turns = (rows as u32).div_ceil(variant.rows);
            part.storage.encode_with(pass, &kernel, [turns, y, z], self.work(rows, part));
            return Ok(());
        };
        let kernel = self.row_kernel(&part.kernels, variant)?;
        for first in (0..rows).step_by(window) {
            let some = window.min(rows - first);
            let turns = (some as u32).div_ceil(variant.rows);
            let dispatch = uniform.window(&self.device, first as u32)?;
            dispatch.encode_with(pass, &kernel, [turns, y, z], self.work(some, part));
        }
        Ok(())
    }

    /// Returns the variant that reads `rows` rows as a uniform in place of `variant`, and the rows that it binds at a time;
    /// `None` if they are read from storage. More rows than a uniform holds are worth several dispatches only where reading
    /// storage takes most of the time.
    fn windows(&self, uniform: &UniformRows, variant: Variant, rows: usize) -> Option<(Variant, usize)> {
        if !variant.uniform {
            return None;
        }
        if (rows as u32).next_multiple_of(variant.rows) <= self.uniform_rows {
            // One window, even of no rows.
            return Some((variant, rows.max(1)));
        }
        if !self.device.loops_over_lanes() {
            return None;
        }
        let mut held = variant.rows;
        while held > self.uniform_rows {
            held = held.div_ceil(2);
        }
        let is_aligned = |window: &u32| uniform.begin(*window).is_multiple_of(self.device.uniform_alignment());
        let window = (1..=self.uniform_rows / held).rev().map(|turns| turns * held).find(is_aligned)?;
        let last = (rows as u32 - 1) / window * window;
        let is_inside = uniform.begin(last) + self.device.largest_uniform() <= uniform.operands[ROWS_OPERAND].bytes();
        is_inside.then_some((Variant { rows: held, ..variant }, window as usize))
    }

    /// Workgroups over a part's weight rows.
    fn grid(&self, part: &Part, blocks: u32) -> [u32; 2] {
        fold(part.outputs.div_ceil(self.lanes).div_ceil(blocks / self.pair))
    }

    /// Returns the work of multiplying `rows` rows by a part of the matrix.
    fn work(&self, rows: usize, part: &Part) -> Work {
        let (outputs, weight_rows) = (part.outputs as usize, (part.outputs * self.pair) as usize);
        let weights = weight_rows * self.columns;
        let reads_output = usize::from(matches!(self.finish, "epilogue/add" | "epilogue/residual"));
        let weight_bytes = weight_rows * part.kernels.format.row_bytes(self.columns);
        let bytes = weight_bytes + 4 * rows * (self.columns + outputs * (1 + reads_output));
        Work::of(rows, [weight_rows, self.columns], bytes, 2 * rows * weights).stored()
    }

    /// Rows of x that a lane of the tile kernel holds, and row groups in its workgroup. The CPU has no use for groups
    /// that share a cache: 16 rows in one group took 0.4 of the time of 8 in each of 4 there.
    fn tile(&self) -> [u32; 2] {
        if self.device.is_software() { [16, 1] } else { [8, 4] }
    }

    fn row_kernel(&self, kernels: &Kernels, variant: Variant) -> Result<Arc<Kernel>> {
        let mut compiled = kernels.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = compiled.get(&variant) {
            return Ok(kernel.clone());
        }
        let run = run_of(kernels.format, self.columns, self.slices);
        let mut constants = row_constants(kernels.format, run, [self.lanes, self.slices, self.pair], variant).to_vec();
        constants.push(self.row_set.constant());
        let input = if variant.uniform { "input/uniform" } else { "input/storage" };
        if variant.uniform {
            constants.push(("X_PIECES", (self.device.largest_uniform() / 16) as u32));
        }
        let slice = if self.device.has_uniform_slices(self.lanes) { "slice/subgroup" } else { "slice/invocation" };
        let own = ["matmul_rows", slice, input, "shared/row_products", "shared/row_turn", "shared/slice_sums"];
        let files = [&own[..], &self.files(kernels.format)].concat();
        let kernel = self.compiled(&files, kernels.format, &constants)?;
        compiled.insert(variant, kernel.clone());
        Ok(kernel)
    }

    fn tile_kernel(&self, kernels: &Kernels) -> Result<Arc<Kernel>> {
        if let Some(kernel) = kernels.tile.get() {
            return Ok(kernel.clone());
        }
        let [rows, tiles] = self.tile();
        let constants = [
            ("ROWS", rows),
            ("BLOCKS", TILE_BLOCKS),
            ("LANES", self.lanes),
            ("RUN", run_of(kernels.format, self.columns, 1)),
            ("PAIR", self.pair),
            ("AHEAD", self.device.is_software().into()),
            ("TILES", tiles),
        ];
        let files = [&["matmul_tile", "input/storage"][..], &self.files(kernels.format)].concat();
        let kernel = self.compiled(&files, kernels.format, &constants)?;
        Ok(kernels.tile.get_or_init(|| kernel).clone())
    }

    /// The files that both kernels need.
    fn files(&self, format: WeightFormat) -> Vec<&'static str> {
        let shared = ["shared/matmul", "shared/ahead", "shared/eight", "shared/step"];
        [&shared[..], format.shaders(), &[self.finish]].concat()
    }

    fn compiled(
        &self,
        files: &[&'static str],
        format: WeightFormat,
        constants: &[(&'static str, u32)],
    ) -> Result<Arc<Kernel>> {
        let [pieces, words] = format.chunk_pieces().map(|count| count as u32);
        self.device.kernel(files, &[constants, &[("CHUNK_PIECES", pieces), ("CHUNK_WORDS", words)]].concat())
    }
}

impl UniformRows {
    /// The byte that row `row` begins at.
    fn begin(&self, row: u32) -> u64 {
        (4 * PIECE) as u64 * u64::from(self.params.pieces) * u64::from(row)
    }

    /// The part with the rows from `first` on, as many as a uniform holds.
    fn window(&self, device: &Device, first: u32) -> Result<Arc<Dispatch>> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dispatch) = windows.get(&first) {
            return Ok(dispatch.clone());
        }
        let params = Buffer::uniform(device, "matmul params", &MatmulParams { first_row: first, ..self.params })?;
        let mut operands: Vec<_> = self.operands.iter().map(|buffer| (buffer, 0)).collect();
        operands[ROWS_OPERAND].1 = self.begin(first);
        operands.insert(0, (&params, 0));
        let dispatch = Arc::new(self.kernel.dispatch_from(device, &operands, [1, 1, 1])?);
        windows.insert(first, dispatch.clone());
        Ok(dispatch)
    }
}

/// Pieces of a run, whose loads may be in flight together, in rows of `columns`. The slice with the most pieces decides how
/// long a product takes, and so does the share of loads that a run waits for: on a CPU a run of 8 took 0.6 to 0.8 of the time
/// of 1. The order of a sum depends on it, and so it depends on the shape alone.
pub(super) fn run_of(format: WeightFormat, columns: usize, slices: u32) -> u32 {
    let (pieces, share) = ((columns / PIECE) as u32, format.share() as u32);
    let is_run = |run: &u32| run.is_multiple_of(share) && pieces.is_multiple_of(*run);
    let cost = |run: &u32| (pieces / run).div_ceil(slices) * (2 * run + 1);
    [8, 6, 4, 3, 2, 1].into_iter().filter(is_run).min_by_key(cost).unwrap_or(share)
}

/// The constants of shared/row_products.wgsl for runs of `run` pieces.
pub(super) fn row_constants(
    format: WeightFormat,
    run: u32,
    [lanes, slices, pair]: [u32; 3],
    variant: Variant,
) -> [(&'static str, u32); 9] {
    let Variant { rows, blocks, ahead, .. } = variant;
    let [touches, holds] = [slices == 1, slices > 1].map(|it| it && ahead);
    [
        ("ROWS", rows),
        ("BLOCKS", blocks),
        ("LANES", lanes),
        ("SLICES", slices),
        ("RUN", run),
        ("PAIR", pair),
        ("AHEAD", touches.into()),
        ("HELD", if holds { held(format, run, variant) } else { 0 }),
        ("TAIL", (TAIL_SUMS / (lanes * slices)).clamp(pair, rows * blocks)),
    ]
}

/// Pieces of each weight row that a lane holds in registers ahead of their use, of runs of `run` pieces. Quantised ones are
/// few words, and are loaded when they are needed.
fn held(format: WeightFormat, run: u32, variant: Variant) -> u32 {
    let sums = variant.rows * variant.blocks;
    let loads = HELD_LOADS.into_iter().find(|(most, _)| sums <= *most).map_or(0, |(_, loads)| loads);
    let loads_of_piece = (format.row_bytes(PIECE) as u32).div_ceil(16);
    let most = if format.is_quantised() { 0 } else { loads / (variant.blocks * loads_of_piece) };
    (1..=most.min(run)).rev().find(|&held| run.is_multiple_of(held)).unwrap_or(0)
}

/// `groups` workgroups as x and y: a grid holds 65,535 in each dimension. The shader drops the surplus.
pub(super) fn fold(groups: u32) -> [u32; 2] {
    const MOST: u32 = 65_535;
    if groups <= MOST { [groups, 1] } else { [MOST, groups.div_ceil(MOST)] }
}
