//! Has an adapter's driver compile the engine's kernels and records their dispatches: the half of `./run compilers`
//! that asks the engine. README.md beside this file describes the whole.
//!
//!     compilers FOLDER SHADERS [alternatives] [every] [float | int16 | int8]
//!     compilers FOLDER FILE.wgsl ..
//!
//! Runs under the Vulkan layer of record.c, which writes modules and dispatches to FOLDER. For the first form this
//! program adds `kernels.jsonl`, a line for each module with its shader files and constants; `uses.jsonl`, a line for
//! each operation of a model with its dispatches; `adapter.json`; and the text of each kernel. Shaders come from the
//! folder SHADERS, so that editing them rebuilds nothing. The second form compiles single shaders, named in
//! `files.jsonl`.

#[path = "../../tests/support/every_op.rs"]
mod every_op;
mod recorder;
mod shapes;
mod single;

use std::error::Error;
use std::path::Path;

use pard::low_level::gpu::{AdapterQuery, Device, KernelPlan, MatmulPath, QuantisedChoice, Shaders};
use pard::model::LoadOptions;

use recorder::Recorder;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [folder, rest @ ..] = &arguments[..] else {
        println!("the compilers of GPUs that are not here are asked by: ./run compilers");
        return Ok(());
    };
    let folder = Path::new(folder);
    if rest.iter().all(|file| file.ends_with(".wgsl")) {
        return single::compile(folder, rest);
    }
    all(folder, Path::new(&rest[0]), &rest[1..])
}

/// All kernels of the models of [`shapes::MODELS`], by default and, if asked for, as a user or the tuner might choose; and
/// those that no model leads to.
fn all(folder: &Path, shaders: &Path, words: &[String]) -> Result<(), Box<dyn Error>> {
    let has = |word: &str| words.iter().any(|given| given == word);
    let shaders = Shaders::from_folder(shaders)?;
    let open = || Device::open_with(&AdapterQuery::default(), shaders.clone());
    let device = open()?;
    let choices =
        [("float", QuantisedChoice::Float), ("int16", QuantisedChoice::Integer16), ("int8", QuantisedChoice::Integer8)];
    let quantised = choices.into_iter().find(|(word, _)| has(word)).map(|(_, choice)| choice).unwrap_or_default();
    let plan = LoadOptions::default().quantised(quantised).plan(&device)?;
    eprintln!("{}; plan: {plan}", device.name());
    let mut recorder = Recorder::new(folder, shaders.clone(), open()?)?;
    recorder.choice = "default";
    shapes::models(&mut recorder, &device, &plan)?;
    if has("alternatives") {
        recorder.choice = "tuner";
        shapes::candidates(&mut recorder, &device, &plan)?;
        if let (Some(tile), MatmulPath::Plain) = (device.cooperative_tile(), plan.products) {
            recorder.choice = "cooperative";
            shapes::products(
                &mut recorder,
                &device,
                &KernelPlan { products: MatmulPath::Cooperative { tile }, ..plan },
            )?;
        }
    }
    if has("every") {
        every_op::build_and_record(&device, &plan);
    }
    recorder.finish(&device, &plan)
}
