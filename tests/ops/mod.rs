//! Every kernel on the device against its oracle: odd shapes, outputs poisoned beforehand, bounds derived.
//! A software adapter compiles each variant for up to a second, so the usual set takes some row counts and shapes and
//! turns formats and finishes with them; `PARD_SWEEP=1` takes all.

pub mod argmax;
pub mod attention;
pub mod constrain;
pub mod embedding;
pub mod experts;
pub mod gather;
pub mod integer;
pub mod log_probabilities;
pub mod matmul;
pub mod penalties;
pub mod probabilities;
pub mod quantise_rows;
pub mod quantised;
pub mod rejection;
pub mod rms_norm;
pub mod rope;
pub mod round;
pub mod states;
pub mod swiglu;
pub mod truncation;

use pard::Result;
use pard::low_level::gpu::{Buffer, Device, Pass};
use pard::low_level::ops::{MAX_ROWS, PassRow, Step, Tensor, TurnSampling};

use crate::comparison::check;
use crate::oracle::Expected;
use crate::support::gpu::sweep;

/// Bits that are NaN as an f32 and as two half-precision numbers, and no token either.
pub const POISON: u32 = u32::MAX;

/// Another NaN, for the rows of inputs that no result may depend on: what is computed from it is not `POISON` again.
const BEYOND: u32 = 0x7fc0_0bad;

/// Row counts of the usual set: those that K of 1, 2, 4 and 8 lead to, and the ends.
pub const ROW_COUNTS: [usize; 8] = [1, 2, 3, 5, 8, 13, 17, MAX_ROWS];

/// Weight rows: around a lane group, around several, and odd.
pub const OUTPUTS: [usize; 8] = [1, 3, 31, 33, 64, 65, 257, 1000];

/// Row widths, all multiples of 8: less than a workgroup's worth, no multiple of it, and more.
pub const WIDTHS: [usize; 7] = [8, 24, 40, 72, 136, 576, 1000];

/// 1..=32 in a sweep, else the usual ones.
pub fn row_counts() -> Vec<usize> {
    if sweep() { (1..=MAX_ROWS).collect() } else { ROW_COUNTS.to_vec() }
}

/// Fills `buffer` with NaN.
pub fn poison(device: &Device, buffer: &Buffer) {
    buffer.write(device, 0, &vec![POISON; (buffer.bytes() / 4) as usize]);
}

/// A poisoned buffer of u32 that begins with `values`.
pub fn words(device: &Device, room: usize, values: &[u32]) -> Buffer {
    let buffer = Buffer::storage(device, "words", 4 * room as u64).expect("a small buffer");
    poison(device, &buffer);
    buffer.write(device, 0, values);
    buffer
}

/// Rows that hold `values`, and NaN in the room beyond them.
pub fn input(device: &Device, width: usize, values: &[f32]) -> Tensor {
    let tensor = room(device, values.len() / width, width);
    tensor.buffer.write(device, 0, &vec![BEYOND; tensor.rows * width]);
    tensor.buffer.write(device, 0, values);
    tensor
}

/// One row that holds `values`.
pub fn vector(device: &Device, values: &[f32]) -> Tensor {
    Tensor::vector(device, "vector", values).expect("a small vector")
}

/// Poisoned room for `rows` rows.
pub fn output(device: &Device, rows: usize, width: usize) -> Tensor {
    let tensor = room(device, rows, width);
    poison(device, &tensor.buffer);
    tensor
}

/// For `rows` rows, or as many as ops ask for, and one that nobody may touch.
fn room(device: &Device, rows: usize, width: usize) -> Tensor {
    Tensor::new(device, "rows", rows.max(MAX_ROWS) + 1, width).expect("a small tensor")
}

/// The first `rows` rows, after checking that nothing was written beyond them.
pub fn read(device: &Device, op: &str, tensor: &Tensor, rows: usize) -> Vec<f32> {
    let mut values: Vec<f32> = tensor.buffer.read(device, 0, tensor.rows * tensor.width).expect("reading back");
    let beyond = values.split_off(rows * tensor.width);
    let touched = beyond.iter().position(|value| value.to_bits() != POISON);
    assert_eq!(touched, None, "{op}: written beyond {rows} rows of {} on {}", tensor.width, device.name());
    values
}

/// `step` on the device.
pub fn step(device: &Device, step: Step) -> Buffer {
    let buffer = Buffer::shared::<Step>(device, "step").expect("a small buffer");
    buffer.write(device, 0, &[step]);
    buffer
}

/// The rows of a pass, each as `row` says.
pub fn outputs(device: &Device, row: impl Fn(usize) -> PassRow) -> Buffer {
    let buffer = PassRow::buffer(device).expect("a small buffer");
    buffer.write(device, 0, &(0..MAX_ROWS).map(row).collect::<Vec<_>>());
    buffer
}

/// The sampling parameters of a round's turns on the device.
pub fn sampling(device: &Device, turns: &[TurnSampling]) -> Buffer {
    let buffer = TurnSampling::buffer(device).expect("a small buffer");
    buffer.write(device, 0, turns);
    buffer
}

/// Runs what `record` records.
pub fn submit(device: &Device, record: impl FnOnce(&mut Pass)) {
    let recorded = Pass::submit(device, None, |pass| -> Result<()> {
        record(pass);
        Ok(())
    });
    recorded.expect("submitting");
}

/// Fails unless every element lies within its bound; the message names the adapter.
pub fn compare(device: &Device, op: &str, context: &str, actual: &[f32], expected: &Expected) {
    check(op, &format!("{context}, {}", device.name()), actual, &expected.values, &expected.bound);
}

/// Fails unless `actual` and `expected` are the same bits.
pub fn same_bits(context: &str, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len(), "{context}");
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits() || a.is_nan();
    if let Some(at) = actual.iter().zip(expected).position(differs) {
        let differing = actual.iter().zip(expected).filter(|&pair| differs(pair)).count();
        panic!("{context}: {differing} of {} differ; [{at}]: {:e}, not {:e}", actual.len(), actual[at], expected[at]);
    }
}
