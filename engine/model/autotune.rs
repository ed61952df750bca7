//! Measurements of one model on one adapter: the fastest variant of the row kernel for each matrix shape and number of
//! rows, and the duration of a pass. Kept in the user's cache. A table changes times and no bit of a result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::pass_cost::PassCost;
use super::runner::ModelRunner;
use super::weights::Weights;
use crate::checkpoint::config::Experts;
use crate::error::{Error, OptionName, Result};
use crate::gpu::{Buffer, MatmulPath, Pass};
use crate::ops::{Epilogue, MAX_ROWS, Matmul, Matrix, RowRange, Step, Tensor, Variant, Variants};

/// A measured table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    key: Key,
    /// Empty where products are cooperative: their kernels have no variants.
    shapes: Vec<(Shape, Vec<Choice>)>,
    /// Numbers of rows, and the seconds of a whole pass of as many.
    pass_seconds: Vec<(usize, f64)>,
}

/// The variant for one number of rows, and why it was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The chosen variant.
    #[serde(flatten)]
    pub variant: Variant,
    /// Its time relative to the usual variant's; 1 for the usual variant itself.
    pub share: f64,
    /// `true` if this number of rows was measured. Others use the choice of the next larger measured number.
    pub measured: bool,
}

/// Identifies what a table was measured for. A table with another key is stale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    engine: String,
    adapter: String,
    plan: String,
    layers: usize,
    shapes: Vec<Shape>,
    /// The experts of mixtures. Their products have no variants, and take part in the passes that are timed.
    experts: Option<String>,
}

/// Properties of a matrix that determine the speed of its product.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Shape {
    rows: usize,
    columns: usize,
    outputs: usize,
    format: String,
}

/// Results of a measurement so far, to be continued on another device: see [`Tuning::measure_on`].
#[derive(Debug, Default)]
pub struct Measured {
    shapes: Vec<(Shape, Vec<Choice>)>,
    left_out: Vec<LeftOut>,
}

/// A variant that could not be run.
#[derive(Debug)]
pub struct LeftOut {
    shape: Shape,
    variant: Variant,
    reason: String,
}

impl LeftOut {
    /// `[weight rows, columns]` of the matrices that it was to multiply.
    pub fn shape(&self) -> [usize; 2] {
        [self.shape.rows, self.shape.columns]
    }

    /// The variant that was tried.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// The error message.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl Measured {
    /// The variants that failed to compile or lost the device.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// The number of matrix shapes that are done.
    pub fn shapes(&self) -> usize {
        self.shapes.len()
    }

    fn is_left_out(&self, shape: &Shape, variant: Variant) -> bool {
        self.left_out.iter().any(|left| left.shape == *shape && left.variant == variant)
    }
}

/// Reports how much of the measuring is done, from 0 to 1; the measuring ends early where it says `false`.
pub type KeepGoing<'a> = dyn Fn(f64) -> bool + 'a;

/// Numbers of rows for which all variants are tried.
const ANCHORS: [usize; 5] = [1, 4, 8, 16, MAX_ROWS];
/// Numbers of rows for which only the usual variant and the choices of the next smaller and the next larger anchor are
/// tried. Compiling takes most of the time, so there are no more of them.
const BETWEEN: [usize; 7] = [2, 3, 6, 12, 13, 17, 24];
/// Weights that take turns: as many of a shape as hold this many bytes, so that no cache helps more than in a pass.
const COLD_BYTES: u64 = 24 << 20;
/// Timed submits of each variant.
const REPETITIONS: usize = 5;
/// A variant this much slower than the best of its first run is not tried again.
const HOPELESS: f64 = 1.4;
/// Time relative to the usual variant's below which another is chosen: measurements are not exact enough for less.
const GAIN: f64 = 0.97;
/// Positions of the sequence whose passes are timed, and the share of the work that this is.
const PASS_POSITIONS: usize = 64;
const PASS_SHARE: f64 = 0.3;

impl Shape {
    fn of(matrix: &Matrix) -> Shape {
        Shape {
            rows: matrix.rows(),
            columns: matrix.columns(),
            outputs: matrix.outputs(),
            format: matrix.formats().iter().map(|format| format.name()).collect::<Vec<_>>().join("+"),
        }
    }
}

impl Key {
    fn of(model: &Weights) -> Key {
        let mut shapes: Vec<Shape> = model.matrices().map(Shape::of).collect();
        shapes.sort();
        shapes.dedup();
        Key {
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            adapter: model.device().name(),
            plan: model.plan().to_string(),
            layers: model.config().layers,
            shapes,
            experts: experts_of(model),
        }
    }

    /// FNV-1a over the key's own text: a name, checked against the whole key when the file is read.
    fn file_name(&self) -> String {
        let text = format!("{self:?}");
        let hash = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("{hash:016x}.json")
    }
}

/// The experts of `model`, as far as they decide how long a pass takes.
fn experts_of(model: &Weights) -> Option<String> {
    let Experts { count, used, feed_forward_size, layers, .. } = model.config().experts.as_ref()?;
    let layers = layers.iter().filter(|mixture| **mixture).count();
    let mut formats: Vec<&str> = model.experts().map(|experts| experts.format().name()).collect();
    formats.sort_unstable();
    formats.dedup();
    Some(format!("{used} of {count}, {feed_forward_size} wide, in {layers} layers, {}", formats.join("+")))
}

impl Tuning {
    /// Measures `model`, which uses the result from then on. None if `keep_going` ended it.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if a decoder runs on the model already; as [`Device::check`](crate::gpu::GpuContext::check).
    pub fn measure(model: &mut Arc<Weights>, keep_going: &KeepGoing) -> Result<Option<Tuning>> {
        Tuning::measure_on(model, &mut Measured::default(), keep_going)
    }

    /// As [`Tuning::measure`], going on from `measured`, which outlives the device. If that is lost, load the same model on
    /// a new one and call this again: the shapes that were done stay done, and the variant at work is left out from then
    /// on.
    ///
    /// # Errors
    ///
    /// As [`Tuning::measure`].
    pub fn measure_on(
        model: &mut Arc<Weights>,
        measured: &mut Measured,
        keep_going: &KeepGoing,
    ) -> Result<Option<Tuning>> {
        let key = Key::of(model);
        let (shapes, pass_share) = match model.plan().products {
            MatmulPath::Plain => (key.shapes.clone(), PASS_SHARE),
            MatmulPath::Cooperative { .. } => (Vec::new(), 1.0),
        };
        let mut tuning = Tuning { key, shapes: Vec::new(), pass_seconds: Vec::new() };
        let share = (1.0 - pass_share) / shapes.len().max(1) as f64;
        for (index, shape) in shapes.into_iter().enumerate() {
            if let Some(done) = measured.shapes.iter().find(|(of, _)| *of == shape) {
                tuning.shapes.push(done.clone());
                continue;
            }
            let of_shape: Vec<&Matrix> = model.matrices().filter(|matrix| Shape::of(matrix) == shape).collect();
            let bytes = of_shape[0].bytes().max(1);
            let some = &of_shape[..of_shape.len().min(COLD_BYTES.div_ceil(bytes) as usize)];
            let going = |done: f64| keep_going((index as f64 + done) * share);
            let Some(variants) = fastest(model, some, measured, &going)? else { return Ok(None) };
            measured.shapes.push((shape.clone(), variants.clone()));
            tuning.shapes.push((shape, variants));
        }
        if !Arc::get_mut(model).is_some_and(|model| tuning.apply(model)) {
            let reason = "the model is in use; measure it before any decoder or draft is made".to_owned();
            return Err(Error::Option { option: OptionName::Tuning, reason });
        }
        let Some(seconds) = pass_seconds(model, &|done| keep_going(1.0 - pass_share + pass_share * done))? else {
            return Ok(None);
        };
        tuning.pass_seconds = seconds;
        Ok(Some(tuning))
    }

    /// Lets `model` use the table for the matrices that are its own; false if a draft shares them, which forbids it.
    pub(super) fn apply(&self, model: &mut Weights) -> bool {
        let Some(matrices) = model.own_matrices_mut() else { return false };
        for matrix in matrices {
            let shape = Shape::of(matrix);
            let choices = self.shapes.iter().find(|(of, _)| *of == shape).map(|(_, choices)| choices);
            let variants = choices.map(|choices| choices.iter().map(|choice| choice.variant).collect::<Vec<_>>());
            if let Some(variants) = variants.and_then(|variants| Variants::try_from(variants).ok()) {
                matrix.set_variants(variants);
            }
        }
        true
    }

    /// The duration of a pass by its number of rows.
    pub fn pass_cost(&self) -> PassCost {
        PassCost::from_points(&self.pass_seconds)
    }

    /// The choices by matrix shape `[weight rows, columns]`, for 1, 2, .. 32 rows.
    pub fn choices(&self) -> impl Iterator<Item = ([usize; 2], &[Choice])> {
        self.shapes.iter().map(|(shape, choices)| ([shape.rows, shape.columns], choices.as_slice()))
    }

    /// Removes what was measured of `model` from `folder`. Returns `false` if that was nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn forget(folder: &Path, model: &Weights) -> Result<bool> {
        let mut found = false;
        for path in [Tuning::path(folder, model), kept_path(folder, model)] {
            match std::fs::remove_file(&path) {
                Ok(()) => found = true,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Write { path, source }),
            }
        }
        Ok(found)
    }

    /// Returns the path of the table for `model` in `folder`.
    pub fn path(folder: &Path, model: &Weights) -> PathBuf {
        folder.join(Key::of(model).file_name())
    }

    /// The table for `model` in `folder`, if there is one that can be read and was measured for this very model, adapter,
    /// driver and version.
    pub fn load(folder: &Path, model: &Weights) -> Option<Tuning> {
        let text = std::fs::read_to_string(Tuning::path(folder, model)).ok()?;
        let tuning: Tuning = serde_json::from_str(&text).ok()?;
        let is_variant = |variant: &Variant, matrix_pair: u32| {
            (1..=MAX_ROWS as u32).contains(&variant.rows)
                && Variant::block_counts(model.plan().lanes, matrix_pair).contains(&variant.blocks)
        };
        let is_whole = |(shape, choices): &(Shape, Vec<Choice>)| {
            let pair = (shape.rows / shape.outputs.max(1)) as u32;
            choices.len() == MAX_ROWS && choices.iter().all(|choice| is_variant(&choice.variant, pair))
        };
        let timed = |seconds: &f64| seconds.is_finite() && *seconds > 0.0;
        let whole = tuning.key == Key::of(model)
            && tuning.shapes.iter().all(is_whole)
            && tuning.pass_seconds.iter().map(|&(rows, _)| rows).eq(measured_rows())
            && tuning.pass_seconds.iter().all(|(_, seconds)| timed(seconds));
        whole.then_some(tuning)
    }

    /// Writes the table for `model` to `folder`, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Write`].
    pub fn save(&self, folder: &Path, model: &Weights) -> Result<PathBuf> {
        let path = Tuning::path(folder, model);
        write(&path, self)?;
        Ok(path)
    }
}

/// How long durations that were measured between rounds count. The machine may have had other work then.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Durations of passes that were measured when they were first needed.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: Key,
    /// By the number of rows, from 1.
    pass_seconds: Vec<f64>,
}

/// The durations of passes of `model` that [`keep`] has written to `folder` in the last [`KEPT_FOR`], for this very model,
/// adapter, driver and version.
pub(super) fn kept(folder: &Path, model: &Weights) -> Option<PassCost> {
    let path = kept_path(folder, model);
    // A file of the future is one that was written before the clock was put right.
    let age = path.metadata().and_then(|file| file.modified()).ok()?.elapsed().unwrap_or_default();
    let kept: Kept = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    let timed = |seconds: &f64| seconds.is_finite() && *seconds > 0.0;
    let whole = age < KEPT_FOR
        && kept.key == Key::of(model)
        && kept.pass_seconds.len() == MAX_ROWS
        && kept.pass_seconds.iter().all(timed);
    let points: Vec<(usize, f64)> = (1..).zip(kept.pass_seconds).collect();
    whole.then(|| PassCost::from_points(&points))
}

/// Writes the durations of passes of `model` to `folder`, whole or not at all.
///
/// # Errors
///
/// [`Error::Write`].
pub(super) fn keep(folder: &Path, model: &Weights, cost: &PassCost) -> Result<()> {
    write(&kept_path(folder, model), &Kept { key: Key::of(model), pass_seconds: cost.seconds().to_vec() })
}

fn kept_path(folder: &Path, model: &Weights) -> PathBuf {
    folder.join(format!("passes-{}", Key::of(model).file_name()))
}

/// Writes `table` to the file `path`, and its folder if need be.
fn write(path: &Path, table: &impl Serialize) -> Result<()> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(io(folder))?;
    }
    let text = serde_json::to_string_pretty(table).map_err(|error| io(path)(error.into()))?;
    let draft = path.with_extension(format!("{}.part", std::process::id()));
    std::fs::write(&draft, text).map_err(io(&draft))?;
    std::fs::rename(&draft, path).map_err(io(path))
}

/// The numbers of rows that are measured, in ascending order.
fn measured_rows() -> impl Iterator<Item = usize> {
    (1..=MAX_ROWS).filter(|rows| ANCHORS.contains(rows) || BETWEEN.contains(rows))
}

/// `variant`, chosen for `chosen_for` rows, as it would be for `rows` of them: in as many turns.
fn restated(variant: Variant, chosen_for: usize, rows: usize) -> Variant {
    let turns = (chosen_for as u32).div_ceil(variant.rows);
    Variant { rows: (rows as u32).div_ceil(turns), ..variant }
}

/// The fastest variant for each number of rows of `matrices`, which are of one shape. Variants take turns, so that a
/// machine that slows down slows all of them.
///
/// A variant that does not compile is left out, and so is, from the next call on, one that costs the device.
fn fastest(
    model: &Weights,
    matrices: &[&Matrix],
    measured: &mut Measured,
    keep_going: &KeepGoing,
) -> Result<Option<Vec<Choice>>> {
    let device = model.device();
    let matrix = matrices[0];
    let step = Buffer::shared::<Step>(device, "step")?;
    let x = Tensor::new(device, "x", MAX_ROWS, matrix.columns())?;
    let y = Tensor::new(device, "y", MAX_ROWS, matrix.outputs())?;
    let values: Vec<f32> = (0..MAX_ROWS * matrix.columns()).map(|index| (index % 17) as f32 * 0.1 - 0.8).collect();
    x.buffer.write(device, 0, &values);
    let pair = (matrix.rows() / matrix.outputs()) as u32;
    let finish = if pair == 2 { Epilogue::Swiglu } else { Epilogue::Store };
    let products = matrices
        .iter()
        .map(|matrix| Matmul::new(device, model.plan(), &step, matrix, [&x, &y], finish, RowRange::All))
        .collect::<Result<Vec<_>>>()?;
    let time = |variant: Variant, rows: usize| -> Result<f64> {
        let begin = Instant::now();
        Pass::submit(device, None, |pass| {
            products.iter().try_for_each(|product| product.encode_as(pass, variant, rows))
        })?;
        device.wait()?;
        Ok(begin.elapsed().as_secs_f64())
    };
    let (plan, shape) = (model.plan(), Shape::of(matrix));
    let defaults = Variant::defaults(device, [plan.lanes, plan.slices], matrix.rows(), pair);
    let mut chosen: BTreeMap<usize, Choice> = BTreeMap::new();
    for rows in ANCHORS.into_iter().chain(BETWEEN) {
        if !keep_going(chosen.len() as f64 / (ANCHORS.len() + BETWEEN.len()) as f64) {
            return Ok(None);
        }
        step.write(device, 0, &[Step { rows: rows as u32, ..Step::default() }]);
        let usual = defaults[rows - 1];
        let mut others = match ANCHORS.contains(&rows) {
            true => Variant::candidates([plan.lanes, plan.slices], rows, pair),
            false => {
                let beside = [chosen.range(..rows).next_back(), chosen.range(rows..).next()].into_iter().flatten();
                beside.map(|(&anchor, choice)| restated(choice.variant, anchor, rows)).collect()
            }
        };
        others.dedup();
        let others = others.into_iter().filter(|candidate| *candidate != usual);
        let fit = std::iter::once(usual).chain(others).filter(|variant| !measured.is_left_out(&shape, *variant));
        let mut tried: Vec<(Variant, Vec<f64>)> = fit.map(|variant| (variant, vec![])).collect();
        for repetition in 0..=REPETITIONS {
            let mut failure = None;
            for (variant, times) in &mut tried {
                match time(*variant, rows) {
                    // The first run compiles.
                    Ok(seconds) if repetition > 0 => times.push(seconds),
                    Ok(_) => {}
                    Err(error) if matches!(error, Error::Compile { .. } | Error::DeviceLost { .. }) => {
                        let reason = error.to_string();
                        measured.left_out.push(LeftOut { shape: shape.clone(), variant: *variant, reason });
                        if matches!(error, Error::DeviceLost { .. }) {
                            return Err(error);
                        }
                        failure = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            tried.retain(|(variant, _)| !measured.is_left_out(&shape, *variant));
            if let Some(error) = failure.filter(|_| tried.is_empty()) {
                return Err(error);
            }
            if repetition == 1 {
                let best = tried.iter().map(|(_, times)| times[0]).fold(f64::INFINITY, f64::min);
                tried.retain(|(variant, times)| *variant == usual || times[0] < HOPELESS * best);
            }
        }
        let median = |times: &[f64]| {
            let mut times = times.to_vec();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        // The usual one is the first, unless it was left out.
        let Some(first) = tried.first() else { return Err(no_variant(&shape, measured)) };
        let best = tried.iter().min_by(|a, b| median(&a.1).total_cmp(&median(&b.1))).unwrap_or(first);
        let share = median(&best.1) / median(&first.1);
        let choice = match share < GAIN {
            true => Choice { variant: best.0, share, measured: true },
            false => Choice { variant: first.0, share: 1.0, measured: true },
        };
        chosen.insert(rows, choice);
    }
    Ok(Some((1..=MAX_ROWS).filter_map(|rows| choice_for(rows, &chosen)).collect()))
}

/// Returns the choice for `rows` rows: that of the smallest number in `chosen` that is not less.
fn choice_for(rows: usize, chosen: &BTreeMap<usize, Choice>) -> Option<Choice> {
    let (&measured, choice) = chosen.range(rows..).next()?;
    let variant = restated(choice.variant, measured, rows);
    Some(Choice { variant, measured: measured == rows, ..*choice })
}

/// The error for a shape of which all variants failed, one after another.
fn no_variant(shape: &Shape, measured: &Measured) -> Error {
    let last = measured.left_out.iter().rfind(|left| left.shape == *shape);
    let reason = format!(
        "no kernel runs for matrices of {} x {}: {}",
        shape.rows,
        shape.columns,
        last.map_or("", |left| left.reason.as_str())
    );
    Error::Option { option: OptionName::Tuning, reason }
}

/// Seconds of passes of the numbers of rows that are measured.
fn pass_seconds(model: &Arc<Weights>, keep_going: &KeepGoing) -> Result<Option<Vec<(usize, f64)>>> {
    let device = model.device();
    let choices = Buffer::storage(device, "choices", 4 * MAX_ROWS as u64)?;
    let sequence = ModelRunner::new(model, PASS_POSITIONS, model.config().vocab_size, &choices)?;
    let counts: Vec<usize> = measured_rows().collect();
    let mut seconds = Vec::new();
    for some in counts.chunks(4) {
        if !keep_going(seconds.len() as f64 / counts.len() as f64) {
            return Ok(None);
        }
        seconds.extend(PassCost::measure_rows(&sequence, some, 3)?);
    }
    Ok(Some(seconds))
}
