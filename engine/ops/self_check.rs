//! Whether this driver keeps the promise that losslessness rests on: a row's bits do not depend on the rows beside it.
//! The kernels are written so that they cannot; a compiler may still reorder or contract what it should not.

use super::{Finish, Matmul, Matrix, Role, RowSet, Step, Tensor, WeightFormat};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Pass, Plan};

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
