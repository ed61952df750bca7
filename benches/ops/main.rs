//! Every kernel by itself, on the shapes of a real model: time, GB/s, GFLOP/s, and the share of the bandwidth that a
//! kernel which only reads reaches on the same device at the same time.
//!
//!     cargo bench --bench ops -- [part of a kernel's name] [smollm2|qwen3-0.6b|llama3-8b]
//!
//! Each result is checked against its oracle before it is timed. Weights and caches are read from so many copies that no
//! cache holds them, as in a forward pass; activations, which the kernel before has just written, stay where they are.

#[allow(dead_code, unused_imports, reason = "its own tests are left out here")]
#[path = "../../tests/comparison.rs"]
mod comparison;
#[allow(dead_code, reason = "whole models are not timed here")]
#[path = "../../tests/oracle/mod.rs"]
mod oracle;
#[allow(dead_code, reason = "the other benches use the rest")]
#[path = "../shapes.rs"]
mod shapes;
#[allow(dead_code, reason = "the oracle of a whole model needs all of it")]
mod support;

mod attention;
mod bench;
mod gradients;
mod matmul;
mod round;
mod rows;

use pard::Result;

/// Kernels to choose from: files of shaders/kernels/.
const KERNELS: [&str; 15] = [
    "embedding",
    "rms_norm",
    "remember",
    "recall",
    "matmul_rows",
    "matmul_tile",
    "input_gradient",
    "weight_gradient",
    "rope",
    "attention",
    "attention_merge",
    "argmax",
    "argmax_merge",
    "inputs",
    "accept",
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (models, filters): (Vec<_>, Vec<_>) =
        arguments.into_iter().partition(|argument| shapes::NAMES.contains(&argument.as_str()));
    let model = models.first().map_or(shapes::NAMES[0], String::as_str);
    let filter = filters.into_iter().next().unwrap_or_default();
    let Some(config) = shapes::shape(model).filter(|_| KERNELS.iter().any(|kernel| kernel.contains(&filter))) else {
        eprintln!("no kernel or shape {filter:?}; there are {}, {}", KERNELS.join(", "), shapes::NAMES.join(", "));
        std::process::exit(2);
    };
    let bench = bench::Bench::open(filter)?;
    println!("{model} on {}; {}\n", bench.device.name(), bench.plan);
    bench.begin()?;
    rows::embedding(&bench, &config)?;
    rows::rms_norm(&bench, &config)?;
    rows::target_states(&bench, &config)?;
    matmul::all(&bench, &config)?;
    gradients::all(&bench, &config)?;
    rows::rope(&bench, &config)?;
    attention::all(&bench, &config)?;
    rows::argmax(&bench, &config)?;
    round::inputs(&bench)?;
    round::accept(&bench)
}
