//! `epilogue/swiglu` by itself: products whose weights pick one value each, so that gates and ups are exactly those given.

use pard::low_level::gpu::Device;
use pard::low_level::ops::{Epilogue, MAX_ROWS, Matmul, Matrix, Phase, RowRange, Source, Step, WeightFormat};

use super::{compare, input, output, read, row_counts, step, submit};
use crate::oracle::swiglu::swiglu;
use crate::support::gpu::device;
use crate::support::random::Random;

/// A row of `x` holds gates and ups, so that these are multiples of half a piece; lanes and blocks divide few of them.
const WIDTHS: [usize; 5] = [4, 8, 24, 136, 260];

/// The kernel's rows for `gate_up`, `[rows, 2 · width]`.
pub fn run(device: &Device, width: usize, gate_up: &[f32]) -> Vec<f32> {
    let rows = gate_up.len() / (2 * width);
    let picking = |range: std::ops::Range<usize>, out: &mut [f32]| {
        out.fill(0.0);
        range.clone().for_each(|row| out[(row - range.start) * 2 * width + row] = 1.0);
        Ok(())
    };
    let plan = device.default_plan();
    let shape = [width, 2 * width];
    let weights = Matrix::of_pair(device, &plan, "weights", WeightFormat::Bf16, shape, Source::Values(&picking))
        .expect("weights");
    let (x, y) = (input(device, 2 * width, gate_up), output(device, rows, width));
    let step = step(device, Step { rows: rows as u32, ..Step::default() });
    let op = Matmul::new(device, &plan, &step, &weights, [&x, &y], Epilogue::Swiglu, RowRange::All).expect("shapes");
    let role = if rows > MAX_ROWS { Phase::Prefill } else { Phase::Decode };
    submit(device, |pass| op.encode(pass, role, rows).expect("a kernel that compiles"));
    read(device, "swiglu", &y, rows)
}

#[test]
fn swiglu_agrees_with_f64() {
    let mut random = Random::new(21);
    for width in WIDTHS {
        for rows in row_counts().into_iter().chain([100]) {
            for magnitude in [1e-30, 1e-3, 1.0, 8.0, 60.0] {
                let gate_up = random.normals(rows * 2 * width, magnitude);
                let context = format!("[{rows}, {width}], magnitude {magnitude}");
                compare(device(), "swiglu", &context, &run(device(), width, &gate_up), &swiglu(&gate_up, width));
            }
        }
    }
}

/// exp(-gate) leaves f32 at a gate of -88.7; silu is 0 long before a gate of -110.
#[test]
fn gates_far_from_zero_neither_overflow_nor_lose_their_sign() {
    let gates =
        [0.0, -0.0, -1.0, -20.0, -80.0, -86.9, -87.0, -87.1, -88.0, -88.8, -89.0, -95.0, -104.0, -1e3, -1e6, 1e6];
    for up in [1.0, -1.0, 1e-20, 1e6, -1e6] {
        let gate_up: Vec<f32> = gates.into_iter().chain([up; 16]).collect();
        let actual = run(device(), gates.len(), &gate_up);
        compare(device(), "swiglu", &format!("up {up}, gates {gates:?}"), &actual, &swiglu(&gate_up, gates.len()));
    }
    let extreme = [-1e30, -3e38, 1e30, 3e38, 1.0, 1.0, 1.0, 1.0];
    let actual = run(device(), 4, &extreme);
    assert!(actual[..2].iter().all(|y| y.abs() <= 1e-35), "{actual:?}");
    assert_eq!(actual[2..], [1e30, 3e38]);
}
