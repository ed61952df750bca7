//! The row kernel beside what the CPU does with the same BF16 weights: a plain loop on all cores, and candle. On a software
//! adapter, which computes on these very cores, that is the physical limit; on a GPU it is a comparison.
//!
//!     cargo bench --bench cpu -- [smollm2|qwen3-0.6b|llama3-8b]
//!
//! All three are checked against each other before they are timed; they take turns, and the medians are reported.

#[allow(dead_code, reason = "the other benches use the rest")]
mod shapes;

use std::ops::Range;
use std::time::Instant;

use candle_core::{DType, Device as CandleDevice, Tensor as CandleTensor};
use half::bf16;
use pard::Result;
use pard::low_level::gpu::{AdapterQuery, Buffer, Device, Pass};
use pard::low_level::ops::{
    COLD_BYTES, Epilogue, MAX_ROWS, Matmul, Matrix, Phase, RowRange, Step, Tensor, WeightFormat,
};

/// Rows of a step, and of a verification of seven drafts.
const ROW_COUNTS: [usize; 2] = [1, 8];
/// Timed turns.
const TURNS: usize = 7;

/// Values of mixed signs and sizes, which BF16 holds exactly.
fn weight(index: usize) -> bf16 {
    bf16::from_f32(((index as f64 * 0.618_033_988_749_895).fract() - 0.5) as f32)
}

/// `y[m] = W · x[m]` on all cores; each takes some of the weight rows.
fn native(weights: &[bf16], columns: usize, x: &[f32], y: &mut [f32]) {
    let outputs = weights.len() / columns;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = outputs.div_ceil(threads);
    let mut columns_of_y: Vec<Vec<f32>> = Vec::new();
    std::thread::scope(|scope| {
        let work = weights.chunks(share * columns).map(|own| {
            scope.spawn(move || {
                let rows = own.chunks_exact(columns);
                x.chunks_exact(columns).flat_map(|x| rows.clone().map(|row| dot(row, x)).collect::<Vec<_>>()).collect()
            })
        });
        let work: Vec<_> = work.collect();
        columns_of_y = work.into_iter().map(|thread| thread.join().expect("a thread that does not panic")).collect();
    });
    for (row, y) in y.chunks_exact_mut(outputs).enumerate() {
        for (thread, own) in columns_of_y.iter().enumerate() {
            let width = own.len() / (x.len() / columns);
            y[thread * share..thread * share + width].copy_from_slice(&own[row * width..(row + 1) * width]);
        }
    }
}

/// Thirty-two sums side by side, for the compiler to lay into vectors.
fn dot(row: &[bf16], x: &[f32]) -> f32 {
    let mut sums = [0.0f32; 32];
    let (pieces, rest) = row.as_chunks::<32>();
    let (x_pieces, x_rest) = x.as_chunks::<32>();
    for (w, x) in pieces.iter().zip(x_pieces) {
        for (sum, (w, x)) in sums.iter_mut().zip(w.iter().zip(x)) {
            *sum += f32::from_bits(u32::from(w.to_bits()) << 16) * x;
        }
    }
    rest.iter().zip(x_rest).fold(sums.iter().sum(), |sum, (w, x)| sum + w.to_f32() * x)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let name = arguments.first().map_or(shapes::NAMES[0], String::as_str);
    let Some(config) = shapes::shape(name).filter(|config| config.experts.is_none()) else {
        eprintln!("no shape {name:?}; there are {}", shapes::NAMES.join(", "));
        std::process::exit(2);
    };
    let device = Device::open(&AdapterQuery::default())?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{name} on {}, and on {threads} cores\n", device.name());
    println!(
        "| matrix | rows | this engine, GB/s | loop, GB/s | candle, GB/s | engine / loop |\n|---|--:|--:|--:|--:|--:|"
    );
    let hidden = config.hidden_size;
    let matrices = [
        ("gate_up", [2 * config.feed_forward_size, hidden]),
        ("down", [hidden, config.feed_forward_size]),
        ("head", [config.vocab_size, hidden]),
    ];
    for (name, shape) in matrices {
        for rows in ROW_COUNTS {
            compare(&device, name, shape, rows)?;
        }
    }
    Ok(())
}

fn compare(device: &Device, name: &str, [outputs, columns]: [usize; 2], rows: usize) -> Result<()> {
    let bytes = outputs * columns * 2;
    let copies = (COLD_BYTES as usize).div_ceil(bytes).min(64);
    let weights: Vec<bf16> = (0..outputs * columns).map(weight).collect();
    let x: Vec<f32> = (0..MAX_ROWS * columns).map(|index| weight(index + 3).to_f32()).collect();
    let own = vec![weights.clone(); copies];
    let candle_weights: Vec<CandleTensor> = (0..copies)
        .map(|_| {
            let tensor = CandleTensor::from_slice(&weights, (outputs, columns), &CandleDevice::Cpu);
            tensor.and_then(|tensor| tensor.t()).expect("a matrix")
        })
        .collect();
    let candle_x = CandleTensor::from_slice(&x[..rows * columns], (rows, columns), &CandleDevice::Cpu);
    let candle_x = candle_x.and_then(|x| x.to_dtype(DType::BF16)).expect("rows");

    let plan = device.default_plan();
    let step = Buffer::shared::<Step>(device, "step")?;
    step.write(device, 0, &[Step { rows: rows as u32, ..Step::default() }]);
    let [input, output] = [columns, outputs].map(|width| Tensor::new(device, "rows", MAX_ROWS, width));
    let (input, output) = (input?, output?);
    input.buffer.write(device, 0, &x);
    let source = |range: Range<usize>, out: &mut [f32]| {
        out.iter_mut().enumerate().for_each(|(index, out)| *out = weights[range.start * columns + index].to_f32());
        Ok(())
    };
    let products = (0..copies)
        .map(|_| {
            let matrix = Matrix::upload(device, &plan, name, WeightFormat::Bf16, [outputs, columns], &source)?;
            Matmul::new(device, &plan, &step, &matrix, [&input, &output], Epilogue::Store, RowRange::All)
        })
        .collect::<Result<Vec<_>>>()?;

    let mut y = vec![0.0f32; rows * outputs];
    let engine = || -> Result<f64> {
        let begin = Instant::now();
        Pass::submit(device, None, |pass| products.iter().try_for_each(|op| op.encode(pass, Phase::Decode, rows)))?;
        device.wait()?;
        Ok(begin.elapsed().as_secs_f64())
    };
    let plain = |y: &mut [f32]| {
        let begin = Instant::now();
        own.iter().for_each(|weights| native(weights, columns, &x[..rows * columns], y));
        begin.elapsed().as_secs_f64()
    };
    let candle = || {
        let begin = Instant::now();
        let mut products: Vec<_> =
            candle_weights.iter().map(|weights| candle_x.matmul(weights).expect("a product")).collect();
        (begin.elapsed().as_secs_f64(), products.pop().expect("a product"))
    };

    engine()?;
    plain(&mut y);
    let ours: Vec<f32> = output.buffer.read(device, 0, rows * outputs)?;
    let theirs: Vec<f32> =
        candle().1.to_dtype(DType::F32).and_then(|y| y.flatten_all()?.to_vec1()).expect("values of the product");
    let scale = y.iter().map(|value| value.abs()).fold(0.0, f32::max);
    for (index, value) in y.iter().enumerate() {
        assert!((ours[index] - value).abs() <= 1e-4 * scale, "{name}, output {index}: {} and {value}", ours[index]);
        // candle rounds its result to BF16.
        assert!((theirs[index] - value).abs() <= 2e-2 * scale, "{name}, output {index}: {} and {value}", theirs[index]);
    }
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..TURNS {
        times[0].push(engine()?);
        times[1].push(plain(&mut y));
        times[2].push(candle().0);
    }
    let [engine, plain, candle] = times.map(|mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        (bytes * copies) as f64 / times[TURNS / 2] / 1e9
    });
    println!(
        "| {name} {outputs} x {columns} | {rows} | {engine:.2} | {plain:.2} | {candle:.2} | {:.2} |",
        engine / plain
    );
    Ok(())
}
