//! Whole forward passes of a model's shape with random weights: T(rows) for 1..=32 rows, and a prompt.
//!
//!     cargo bench --bench forward -- [smollm2|qwen3-0.6b|llama3-8b|qwen3-30b-a3b] [--context N]
//!
//! Weights are made from a seed, so that nothing is downloaded; times do not depend on their values. All row counts are
//! interleaved and the median is reported, since machines are noisy.

mod shapes;

use std::sync::Arc;
use std::time::Instant;

use pard::Result;
use pard::low_level::forward::{ModelRunner, expected_matrices};
use pard::low_level::gpu::{AdapterQuery, Buffer, Device};
use pard::low_level::ops::{MAX_ROWS, Phase};
use pard::model::{WeightDtype, Weights};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let name = arguments.first().map_or("smollm2", String::as_str);
    let Some(config) = shapes::shape(name) else {
        eprintln!("no shape {name:?}; there are {}, {}", shapes::NAMES.join(", "), shapes::MIXTURE);
        std::process::exit(2);
    };
    let device = Device::open(&AdapterQuery::default())?;
    let plan = device.default_plan();
    let begin = Instant::now();
    let weights = shapes::RandomWeights::new(&config);
    let model = Arc::new(Weights::upload(&device, &plan, &config, &weights, WeightDtype::Compact, &|_, _| ())?);
    println!("{name} on {}; {plan}; {:.1} s to upload", device.name(), begin.elapsed().as_secs_f64());
    let choices = Buffer::storage(&device, "choices", 4 * MAX_ROWS as u64)?;
    let sequence = ModelRunner::new(&model, 1024, config.vocab_size, &choices)?;
    let time = |role, rows: usize, outputs| -> Result<f64> {
        let tokens: Vec<u32> = (0..rows as u32).map(|id| id * 7919 % config.vocab_size as u32).collect();
        let begin = Instant::now();
        sequence.run(role, &tokens, 128, outputs)?;
        device.wait()?;
        Ok(begin.elapsed().as_secs_f64())
    };
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };

    let counts = [1, 2, 3, 4, 5, 6, 8, 9, 12, 13, 16, 17, 24, 32];
    for rows in counts {
        let begin = Instant::now();
        time(Phase::Decode, rows, rows)?;
        eprintln!("first pass of {rows} rows, kernels compiled: {:.2} s", begin.elapsed().as_secs_f64());
    }
    let mut times = vec![Vec::new(); counts.len()];
    for _ in 0..7 {
        for (at, &rows) in counts.iter().enumerate() {
            times[at].push(time(Phase::Decode, rows, rows)?);
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    println!(
        "weights {:.0} MB, {:.1} GB/s at one row",
        model.bytes() as f64 / 1e6,
        model.bytes() as f64 / medians[0] / 1e9
    );
    println!("| rows | ms | T(rows) / T(1) |\n|---|---|---|");
    for (rows, seconds) in counts.iter().zip(&medians) {
        println!("| {rows} | {:.2} | {:.2} |", seconds * 1e3, seconds / medians[0]);
    }
    let prompt = 256;
    time(Phase::Prefill, prompt, 0)?;
    let seconds = median((0..3).map(|_| time(Phase::Prefill, prompt, 0)).collect::<Result<_>>()?);
    let matrices: usize = expected_matrices(&config).iter().skip(1).map(|(_, shape)| shape[0] * shape[1]).sum();
    println!(
        "prompt of {prompt}: {:.1} ms, {:.0} tokens/s, {:.1} GFLOP/s",
        seconds * 1e3,
        prompt as f64 / seconds,
        2.0 * (matrices * prompt) as f64 / seconds / 1e9
    );
    Ok(())
}
