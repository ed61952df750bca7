//! Checks that this driver keeps the promise that losslessness rests on: a row's bits do not depend on the rows beside
//! it. The kernels are written so; a compiler may still reorder or contract what it should not. Checks as well that the
//! values are right at all, and that cooperative matrices agree with plain kernels: they are new in drivers, and wgpu's
//! own support of them is experimental (it leaves out memory semantics that the Vulkan memory model asks for, so that a
//! driver could race).

use super::{Epilogue, Matmul, Matrix, Phase, RmsNorm, RowRange, Step, Tensor, WeightFormat};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, KernelPlan, MatmulPath, Pass, QuantisedProducts};

/// Runs the row kernels with one row and with `rows` rows and compares the bits of the first.
///
/// # Errors
///
/// [`Error::Gpu`] if they differ: speculation would then change the text.
pub fn check_row_invariance(device: &Device, plan: &KernelPlan, rows: usize) -> Result<()> {
    row_invariance(device, plan, WeightFormat::Bf16, rows)?;
    match plan.quantised {
        QuantisedProducts::Float => Ok(()),
        QuantisedProducts::Integer { .. } => row_invariance(device, plan, WeightFormat::Q4K, rows),
    }
}

fn row_invariance(device: &Device, plan: &KernelPlan, format: WeightFormat, rows: usize) -> Result<()> {
    const DEPTH: usize = 256;
    const WIDTH: usize = 96;
    // Any values of mixed signs and sizes; a Weyl sequence needs no generator.
    let value = |index: usize| ((index as f64 * 0.618_033_988_749_895).fract() - 0.5) as f32 * (index % 7 + 1) as f32;
    let source = |range: std::ops::Range<usize>, out: &mut [f32]| {
        out.iter_mut().enumerate().for_each(|(index, out)| *out = value(range.start * DEPTH + index));
        Ok(())
    };
    let weights = Matrix::upload(device, plan, "self-check", format, [WIDTH, DEPTH], &source)?;
    let x = Tensor::new(device, "self-check x", super::MAX_ROWS, DEPTH)?;
    let y = Tensor::new(device, "self-check y", super::MAX_ROWS, WIDTH)?;
    let values: Vec<f32> = (0..super::MAX_ROWS * DEPTH).map(|index| value(index + 17)).collect();
    x.buffer.write(device, 0, &values);
    let step = Buffer::shared::<Step>(device, "self-check step")?;
    let matmul = Matmul::new(device, plan, &step, &weights, [&x, &y], Epilogue::Store, RowRange::All)?;
    let first_row = |rows: usize| -> Result<Vec<u32>> {
        step.write(device, 0, &[Step { rows: rows as u32, ..Step::default() }]);
        Pass::submit(device, None, |pass| matmul.encode(pass, Phase::Decode, rows))?;
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

/// Runs a product and a norm on `device` and holds them against sums in f64.
///
/// # Errors
///
/// [`Error::Gpu`] if they differ by more than rounding: the driver compiles the kernels wrongly.
pub fn check_values(device: &Device, plan: &KernelPlan) -> Result<()> {
    // Sizes that fill no tile, so that the ends of rows and columns count.
    const DEPTH: usize = 264;
    const WIDTH: usize = 83;
    const ROWS: usize = 5;
    let value = |index: usize| ((index as f64 * 0.618_033_988_749_895).fract() - 0.5) as f32;
    let source = |range: std::ops::Range<usize>, out: &mut [f32]| {
        out.iter_mut().enumerate().for_each(|(index, out)| *out = value(range.start * DEPTH + index));
        Ok(())
    };
    let weights = Matrix::upload(device, plan, "self-check", WeightFormat::F32, [WIDTH, DEPTH], &source)?;
    let x = Tensor::new(device, "self-check x", super::MAX_ROWS, DEPTH)?;
    let normed = Tensor::new(device, "self-check normed", super::MAX_ROWS, DEPTH)?;
    let y = Tensor::new(device, "self-check y", super::MAX_ROWS, WIDTH)?;
    let gain = Tensor::new(device, "self-check gain", 1, DEPTH)?;
    gain.buffer.write(device, 0, &[1.0f32; DEPTH]);
    let values: Vec<f32> = (0..ROWS * DEPTH).map(|index| value(index + 17)).collect();
    x.buffer.write(device, 0, &values);
    let step = Buffer::shared::<Step>(device, "self-check step")?;
    step.write(device, 0, &[Step { rows: ROWS as u32, ..Step::default() }]);
    let norm = RmsNorm::new(device, &step, [&x, &normed], &gain, 1e-5, RowRange::All)?;
    let matmul = Matmul::new(device, plan, &step, &weights, [&normed, &y], Epilogue::Store, RowRange::All)?;

    for role in [Phase::Decode, Phase::Prefill] {
        y.buffer.write(device, 0, &[f32::NAN; ROWS * WIDTH]);
        Pass::submit(device, None, |pass| {
            norm.encode(pass, ROWS);
            matmul.encode(pass, role, ROWS)
        })?;
        let found: Vec<f32> = y.buffer.read(device, 0, ROWS * WIDTH)?;
        for (row, values) in values.chunks_exact(DEPTH).enumerate() {
            let mean_square = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / DEPTH as f64;
            let scale = 1.0 / (mean_square + 1e-5).sqrt();
            for column in 0..WIDTH {
                let products = values
                    .iter()
                    .enumerate()
                    .map(|(at, &x)| scale * f64::from(x) * f64::from(value(column * DEPTH + at)));
                let (sum, size) =
                    products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()));
                let error = (f64::from(found[row * WIDTH + column]) - sum).abs();
                let is_close = error <= VALUE_TOLERANCE * size;
                if !is_close {
                    return Err(Error::Gpu {
                        what: "self-check".to_owned(),
                        reason: format!(
                            "{} computes {} where {sum} is right; update the driver",
                            device.name(),
                            found[row * WIDTH + column]
                        ),
                    });
                }
            }
        }
    }
    Ok(())
}

/// Tolerance for a sum of 264 products, in sums of their sizes: 2^-23 for each addition, and the norm's few.
const VALUE_TOLERANCE: f64 = 270.0 / 8_388_608.0;

/// If the plan's products of quantised weights are in integers: compares them with those in floats on small matrices.
///
/// # Errors
///
/// [`Error::Gpu`] if they differ by more than x was rounded by.
fn check_integers(device: &Device, plan: &KernelPlan) -> Result<()> {
    const DEPTH: usize = 512;
    const WIDTH: usize = 83;
    const ROWS: usize = 5;
    let QuantisedProducts::Integer { planes } = plan.quantised else { return Ok(()) };
    let value = |index: usize| ((index as f64 * 0.618_033_988_749_895).fract() - 0.5) as f32;
    let source = |range: std::ops::Range<usize>, out: &mut [f32]| {
        out.iter_mut().enumerate().for_each(|(index, out)| *out = value(range.start * DEPTH + index));
        Ok(())
    };
    let x = Tensor::new(device, "self-check x", super::MAX_ROWS, DEPTH)?;
    let y = Tensor::new(device, "self-check y", super::MAX_ROWS, WIDTH)?;
    x.buffer.write(device, 0, &(0..ROWS * DEPTH).map(|index| value(index + 17)).collect::<Vec<f32>>());
    let step = Buffer::shared::<Step>(device, "self-check step")?;
    step.write(device, 0, &[Step { rows: ROWS as u32, ..Step::default() }]);
    // In norms of the rows multiplied: several times what rounding x amounts to, and a fraction of a byte left out.
    let tolerance = if planes == 2 { 1.0 / 62_000.0 } else { 1.0 / 250.0 };
    let norm = |first: usize| (0..DEPTH).map(|at| f64::from(value(first + at)).powi(2)).sum::<f64>().sqrt();
    for format in [WeightFormat::Q8_0, WeightFormat::Q4K, WeightFormat::Q6K] {
        let run = |plan: &KernelPlan| -> Result<Vec<f32>> {
            let weights = Matrix::upload(device, plan, "self-check", format, [WIDTH, DEPTH], &source)?;
            let matmul = Matmul::new(device, plan, &step, &weights, [&x, &y], Epilogue::Store, RowRange::All)?;
            y.buffer.write(device, 0, &[f32::NAN; ROWS * WIDTH]);
            Pass::submit(device, None, |pass| matmul.encode(pass, Phase::Decode, ROWS))?;
            y.buffer.read(device, 0, ROWS * WIDTH)
        };
        let [found, expected] = [run(plan)?, run(&KernelPlan { quantised: QuantisedProducts::Float, ..*plan })?];
        let is_close = |at: usize| {
            let size = norm(17 + at / WIDTH * DEPTH) * norm(at % WIDTH * DEPTH);
            f64::from((found[at] - expected[at]).abs()) <= tolerance * size
        };
        if !(0..ROWS * WIDTH).all(is_close) {
            return Err(Error::Gpu {
                what: "self-check".to_owned(),
                reason: format!(
                    "the integer products of {} by {} weights are not what they should be; update the driver, or use \
                     --quantised-products float",
                    device.name(),
                    format.name()
                ),
            });
        }
    }
    Ok(())
}

/// If the plan's products are cooperative: compares them with the plain kernels' on a small matrix, and the bits of its
/// rows over several row counts and as a prompt. If those of quantised weights are in integers: compares them with those in
/// floats.
///
/// # Errors
///
/// [`Error::Gpu`] if they differ: the adapter's matrix units, or its integers, cannot be relied on.
pub fn check_products(device: &Device, plan: &KernelPlan) -> Result<()> {
    if plan.products == MatmulPath::Plain {
        return check_integers(device, plan);
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
    let x = Tensor::new(device, "self-check x", super::MAX_ROWS, DEPTH)?;
    let y = Tensor::new(device, "self-check y", super::MAX_ROWS, WIDTH)?;
    x.buffer.write(device, 0, &(0..ROWS * DEPTH).map(|index| scaled(index + 11)).collect::<Vec<f32>>());
    let step = Buffer::shared::<Step>(device, "self-check step")?;
    let product = |plan: &KernelPlan, format: WeightFormat| -> Result<(Matrix, Matmul)> {
        let weights = Matrix::upload(device, plan, "self-check", format, [WIDTH, DEPTH], &source)?;
        let matmul = Matmul::new(device, plan, &step, &weights, [&x, &y], Epilogue::Store, RowRange::All)?;
        Ok((weights, matmul))
    };
    let run = |matmul: &Matmul, role: Phase, rows: usize| -> Result<Vec<f32>> {
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
        let (_plain_weights, plain) = product(&KernelPlan { products: MatmulPath::Plain, ..*plan }, format)?;
        let (_weights, cooperative) = product(plan, format)?;
        let expected = run(&plain, Phase::Decode, ROWS)?;
        let all = run(&cooperative, Phase::Decode, ROWS)?;
        let is_close = |at: usize| {
            let size = x_norms[at / WIDTH] * weight_norms[at % WIDTH];
            f64::from((all[at] - expected[at]).abs()) <= PRODUCT_TOLERANCE * size
        };
        let mut is_right = (0..ROWS * WIDTH).all(is_close);
        // Whatever races does so now and then.
        for rows in [1, 8, 9, 16, 17, ROWS, 1, ROWS] {
            is_right &= run(&cooperative, Phase::Decode, rows)?[..] == all[..rows * WIDTH];
        }
        is_right &= run(&cooperative, Phase::Prefill, ROWS)? == all;
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

/// Tolerance between the two products, in norms of the rows multiplied. The sums' rounding is well below it; one half
/// left out (2^-12), a column or a tile is far above.
const PRODUCT_TOLERANCE: f64 = 4e-6;
