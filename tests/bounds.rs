//! Kernels keep inside their arrays by themselves: release builds have Vulkan check nothing. `PARD_AUDIT=1` puts every
//! other test to the same check.

use std::sync::Arc;

use pard::Error;
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{AdapterQuery, Buffer, CacheFormat, Device, KernelPlan, Shaders};
use pard::low_level::ops::{MAX_ROWS, Phase, check_values};
use pard::model::{WeightDtype, Weights};

use crate::ops::matmul::GPU_PLANS;
use crate::support::edited_shaders::edited;
use crate::support::memory::Memory;
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

/// Plans, cache formats and families take turns: what a pass compiles, it compiles for each of them.
#[test]
fn passes_stay_inside_their_arrays() {
    let device = Device::open_audited(&AdapterQuery::default(), Shaders::default()).expect("an adapter");
    let plans: Vec<KernelPlan> = [device.default_plan()].into_iter().chain(GPU_PLANS).collect();
    for (turn, recipe) in Recipe::each_family(1).into_iter().chain([Recipe::qwen3_moe(1)]).enumerate() {
        let memory = Memory::new(recipe.tensors());
        let tokens = Random::new(turn as u64).indices(300, recipe.config.vocab_size);
        let plan = KernelPlan { cache: CacheFormat::ALL[turn % CacheFormat::ALL.len()], ..plans[turn % plans.len()] };
        let model = Weights::upload(&device, &plan, &recipe.config, &memory, WeightDtype::Compact, &|_, _| ());
        let model = Arc::new(model.expect("upload"));
        let choices = Buffer::storage(&device, "choices", 128).expect("a small buffer");
        // The last position is the caches' last.
        let sequence = ModelRunner::new(&model, 300, recipe.config.vocab_size, &choices).expect("bindings");
        sequence.prefill(&tokens[..261], 0).expect("prompt rows");
        for rows in [3, MAX_ROWS] {
            sequence.run(Phase::Decode, &tokens[300 - rows..], 300 - rows, rows).expect("rows of a round");
        }
    }
}

/// A kernel that writes one row too far.
#[test]
fn an_access_outside_is_found_and_named() {
    let shaders = edited("pieces/norm/store.wgsl", |text| text.replace("y[row", "y[arrayLength(&y) + row"));
    let device = Device::open_audited(&AdapterQuery::default(), shaders).expect("an adapter");
    match check_values(&device, &device.default_plan()) {
        Err(Error::Gpu { what, reason }) => {
            assert!(what.starts_with("rms_norm (") && reason.starts_with("y["), "{what}: {reason}");
        }
        other => panic!("{other:?}"),
    }
}
