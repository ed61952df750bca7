//! Trained tokens per second of a draft of SmolLM2's shape, beside candle's autograd on the CPU.
//!
//!     cargo bench --bench train -- [LAYERS] [VOCABULARY]
//!
//! Embeddings and head are frozen, weights are made from a seed, and both learn the same rows: samples of 128 tokens
//! with the masks of K = 8. A step is forward, loss, backward and AdamW. The two take turns; medians are reported, once
//! their losses agree.

#[path = "../tests/training/candle.rs"]
mod candle;
#[allow(dead_code, reason = "the other benches use the rest")]
mod shapes;

use std::time::Instant;

use candle_core::Device::Cpu;
use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer as _, ParamsAdamW};
use pard::Result;
use pard::checkpoint::Checkpoint;
use pard::checkpoint::config::Config;
use pard::low_level::gpu::{AdapterQuery, CacheFormat, Device, KernelPlan};
use pard::low_level::training::{
    CodRetention, Loss, NetworkOptions, OptimizerOptions, PackedRows, Sample, Schedule, Trainer, TrainingOptions,
};

const SAMPLE_TOKENS: usize = 128;
const SAMPLES: usize = 2;
const TURNS: usize = 5;

fn main() -> Result<()> {
    let arguments: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let layers = arguments.first().copied().unwrap_or(4);
    let vocab_size = arguments.get(1).copied().unwrap_or(49152);
    let config = Config { layers, vocab_size, ..shapes::shape("smollm2").expect("a known shape") };
    let device = Device::open(&AdapterQuery::default())?;
    let plan = KernelPlan { cache: CacheFormat::F32, ..device.default_plan() };
    let checkpoint = shapes::RandomWeights::new(&config);
    let retention = CodRetention { segments: 8, ratio: 0.7, least: 0.2 };
    let samples: Vec<Sample> = (0..SAMPLES)
        .map(|sample| Sample {
            tokens: (0..SAMPLE_TOKENS).map(|at| ((at + 1) * (sample + 7919) % vocab_size) as u32).collect(),
            labelled: (0..SAMPLE_TOKENS).map(|at| at > 0).collect(),
        })
        .collect();
    let mask_token = vocab_size as u32;
    let rows = SAMPLES * retention.max_rows(SAMPLE_TOKENS);
    let layer_list: Vec<usize> = (0..layers).collect();
    let recipe = NetworkOptions {
        config: &config,
        checkpoint: &checkpoint,
        layers: &layer_list,
        mask_token,
        freeze_embeddings: true,
        vocabulary: None,
        rows,
        positions: SAMPLE_TOKENS,
        teacher: None,
        loss: Loss::TEXT,
        target_layers: &[],
    };
    let options = TrainingOptions {
        retention,
        optimizer: OptimizerOptions::default(),
        epochs: u64::MAX,
        batch_rows: rows,
        warmup: 0,
        schedule: Schedule::Constant,
        floor: 1.0,
        state_dropout: 0.0,
        seed: 1,
    };
    let mut trainer = Trainer::new(&device, &plan, &recipe, samples.clone(), options)?;

    // candle has no mask row of its own: its table is one row longer.
    let mut packed = PackedRows::default();
    let mut random = fastrand::Rng::with_seed(2);
    samples.iter().for_each(|sample| packed.append(PackedRows::of(sample, &retention, mask_token, &mut random)));
    let rows_of_candle = candle::Row::all(&packed);
    let labelled = packed.labelled() as f64;
    let (mut weights, mut variables) = (candle::Tensors::new(), Vec::new());
    for info in checkpoint.tensors() {
        let columns = info.shape.last().copied().unwrap_or(1);
        let mut values = vec![0.0; info.shape.iter().product()];
        checkpoint.read_rows(&info.name, 0..values.len() / columns, &mut values)?;
        let is_table = info.name == "model.embed_tokens.weight";
        let tensor = Tensor::from_vec(values, info.shape.clone(), &Cpu).expect("a tensor");
        if is_table {
            let mask = tensor.mean_keepdim(0).expect("a row");
            weights.insert(info.name.clone(), Tensor::cat(&[&tensor, &mask], 0).expect("a longer table"));
        } else {
            let variable = Var::from_tensor(&tensor).expect("a variable");
            weights.insert(info.name.clone(), variable.as_tensor().clone());
            variables.push(variable);
        }
    }
    let mut optimizer = AdamW::new(variables, ParamsAdamW { lr: 3e-5, ..ParamsAdamW::default() }).expect("AdamW");

    let tokens = (SAMPLES * SAMPLE_TOKENS) as f64;
    let mut times = [const { Vec::new() }; 2];
    for turn in 0..=TURNS {
        let begin = Instant::now();
        let report = trainer.step(0.0)?;
        let ours = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let loss = candle::loss(&config, &weights, &rows_of_candle, None).expect("candle's loss");
        let loss = (loss / labelled).expect("candle's mean loss");
        optimizer.backward_step(&loss).expect("candle's step");
        let theirs = begin.elapsed().as_secs_f64();
        let loss = f64::from(loss.to_scalar::<f32>().expect("a number"));
        // Chains are drawn anew each step, and candle's softmax has one token more.
        assert!((report.loss - loss).abs() < 0.05 * loss, "losses {} and {loss}", report.loss);
        if turn > 0 {
            times[0].push(ours);
            times[1].push(theirs);
        }
    }
    let [ours, theirs] = times.map(|mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[TURNS / 2]
    });
    println!(
        "{layers} layers of SmolLM2's shape, {vocab_size} tokens, {} rows for {tokens} tokens a step, on {}",
        packed.rows.len(),
        device.name()
    );
    println!("this engine: {:.0} tokens/s, {:.0} rows/s", tokens / ours, packed.rows.len() as f64 / ours);
    println!("candle on the CPU: {:.0} tokens/s; this engine / candle: {:.2}", tokens / theirs, theirs / ours);
    Ok(())
}
