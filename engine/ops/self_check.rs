//! Whether this driver keeps the promise that losslessness rests on: a row's bits do not depend on the rows beside it.
//! The kernels are written so that they cannot; a compiler may still reorder or contract what it should not.
//! And whether cooperative matrices give what plain kernels give: they are new in drivers, and wgpu's own support of them
//! is experimental (it leaves out memory semantics that the Vulkan memory model asks for, so that a driver could race).

use super::{Finish, Matmul, Matrix, Role, RowSet, Step, Tensor, WeightFormat};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Pass, Plan, Products};

/// Runs the row kernel with one row and with `rows` rows and compares the bits of the first.
///
/// Errors: [`Error::Gpu`] if they differ: speculation would then change the text.
pub fn check_row_invariance(device: &Device, plan: &Plan, rows: usize) -> Result<()> {
    const DEPTH: usize = 256;
    const WIDTH: usize = 96;
    // Any values of mixed signs and sizes; a Weyl sequence needs no generator.
    let value = |index: usize| ((index as f64 * 0.618_033_988_749_895).fract() - 0.5) as f32 * (index % 7 + 1) as f32;
    let source = |range: std::ops::Range<usize>, out: &mut [f32]| {
        out.iter_mut().enumerate().for_each(|(index, out)| *out = value(range.start * DEPTH + index));
        Ok(())
    };
    let weights = Matrix::upload(device, plan, "self-check", WeightFormat::Bf16, [WIDTH, DEPTH], &source)?;
    let x = Tensor::new(device, "self-check x", super::MOST_ROWS, DEPTH)?;
    let y = Tensor::new(device, "self-check y", super::MOST_ROWS, WIDTH)?;
    let values: Vec<f32> = (0..super::MOST_ROWS * DEPTH).map(|index| value(index + 17)).collect();
    x.buffer.write(device, 0, &values);
    let step = Buffer::shared::<Step>(device, "self-check step")?;
    let matmul = Matmul::new(device, plan, &step, &weights, [&x, &y], Finish::Store, RowSet::All)?;
    let first_row = |rows: usize| -> Result<Vec<u32>> {
        step.write(device, 0, &[Step { rows: rows as u32, ..Step::default() }]);
        Pass::submit(device, None, |pass| matmul.encode(pass, Role::Round, rows))?;
        y.buffer.read(device, 0, WIDTH)
    };
    if first_row(1)? == first_row(rows)? {
        return Ok(());
    }
    Err(Error::Gpu {
        what: "self-check".to_owned(),
        reason: format!(
            "{} computes a row differently alone and beside {} others, so speculation would change the text; update \
             the driver, or decode with --method ar",
            device.name(),
            rows - 1
        ),
    })
}

/// If the plan's products are cooperative: compares them with the plain kernels' on a small matrix, and the bits of its
/// rows over several row counts and as a prompt.
///
/// Errors: [`Error::Gpu`] if they differ: the adapter's matrix units cannot be relied on.
pub fn check_products(device: &Device, plan: &Plan) -> Result<()> {
    if plan.products == Products::Plain {
        return Ok(());
    }
    // Several tiles each way, none of them full at the end, and columns past the last whole chunk.
    const DEPTH: usize = 200;
    const WIDTH: usize = 83;
    const ROWS: usize = 27;
    let value = |index: usize| ((index as f64 * 0.618_033_988_749_895).fract() - 0.5) as f32;
    // Neighbouring rows differ by factors of 2^8 and more, values within a row by 2^8.
    let scaled = |index: usize| {
        let (row, column) = (index / DEPTH, index % DEPTH);
        value(index) * f32::powi(2.0, (row * 7 % 40) as i32 - 20) * f32::powi(2.0, -((column % 9) as i32))
    };
    let source = |range: std::ops::Range<usize>, out: &mut [f32]| {
        out.iter_mut().enumerate().for_each(|(index, out)| *out = scaled(range.start * DEPTH + index));
        Ok(())
    };
    let x = Tensor::new(device, "self-check x", super::MOST_ROWS, DEPTH)?;
    let y = Tensor::new(device, "self-check y", super::MOST_ROWS, WIDTH)?;
    x.buffer.write(device, 0, &(0..ROWS * DEPTH).map(|index| scaled(index + 11)).collect::<Vec<f32>>());
    let step = Buffer::shared::<Step>(device, "self-check step")?;
    let product = |plan: &Plan, format: WeightFormat| -> Result<(Matrix, Matmul)> {
        let weights = Matrix::upload(device, plan, "self-check", format, [WIDTH, DEPTH], &source)?;
        let matmul = Matmul::new(device, plan, &step, &weights, [&x, &y], Finish::Store, RowSet::All)?;
        Ok((weights, matmul))
    };
    let run = |matmul: &Matmul, role: Role, rows: usize| -> Result<Vec<f32>> {
        step.write(device, 0, &[Step { rows: rows as u32, ..Step::default() }]);
        Pass::submit(device, None, |pass| matmul.encode(pass, role, rows))?;
        y.buffer.read(device, 0, rows * WIDTH)
    };
    let norms = |first: usize, rows: usize| -> Vec<f64> {
        let row = |row: usize| (0..DEPTH).map(move |column| f64::from(scaled(first + row * DEPTH + column)).powi(2));
        (0..rows).map(|at| row(at).sum::<f64>().sqrt()).collect()
    };
    let (x_norms, weight_norms) = (norms(11, ROWS), norms(0, WIDTH));
    for format in [WeightFormat::Bf16, WeightFormat::F32] {
        let (_plain_weights, plain) = product(&Plan { products: Products::Plain, ..*plan }, format)?;
        let (_weights, cooperative) = product(plan, format)?;
        let expected = run(&plain, Role::Round, ROWS)?;
        let all = run(&cooperative, Role::Round, ROWS)?;
        let is_close = |at: usize| {
            let size = x_norms[at / WIDTH] * weight_norms[at % WIDTH];
            f64::from((all[at] - expected[at]).abs()) <= PRODUCT_TOLERANCE * size
        };
        let mut is_right = (0..ROWS * WIDTH).all(is_close);
        // Whatever races does so now and then.
        for rows in [1, 8, 9, 16, 17, ROWS, 1, ROWS] {
            is_right &= run(&cooperative, Role::Round, rows)?[..] == all[..rows * WIDTH];
        }
        is_right &= run(&cooperative, Role::Prompt, ROWS)? == all;
        if !is_right {
            return Err(Error::Gpu {
                what: "self-check".to_owned(),
                reason: format!(
                    "the cooperative matrices of {} do not give what they should; update the driver, or use \
                     --products plain",
                    device.name()
                ),
            });
        }
    }
    Ok(())
}

/// How far the two products may be apart, in norms of the rows multiplied. The sums' rounding is well below it; one half
/// left out (2^-12), a column or a tile is far above.
const PRODUCT_TOLERANCE: f64 = 4e-6;
