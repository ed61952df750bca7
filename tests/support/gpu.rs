//! The device that tests run on, and what they share to put models on it.

use std::sync::{Arc, LazyLock};

use pard_engine::gpu::{AdapterQuery, CacheFormat, Device, Plan};
use pard_engine::model::{Transformer, WeightChoice};

use super::memory::Memory;
use super::tiny_model::Recipe;

/// The adapter under test: the best one, or the one that `WGPU_ADAPTER_NAME` names. A machine without any fails.
pub fn device() -> &'static Device {
    static DEVICE: LazyLock<Device> =
        LazyLock::new(|| Device::open(&AdapterQuery::default()).expect("these tests need a GPU or a software adapter"));
    &DEVICE
}

/// The adapter's plan with the cache format `cache`.
pub fn plan(cache: CacheFormat) -> Plan {
    Plan { cache, ..device().default_plan() }
}

/// Uploads the model of `recipe`.
pub fn upload(recipe: &Recipe, plan: &Plan) -> Arc<Transformer> {
    let memory = Memory::new(recipe.tensors());
    let model = Transformer::upload(device(), plan, &recipe.config, &memory, WeightChoice::Compact, &|_, _| ())
        .expect("upload");
    Arc::new(model)
}

/// Whether the long sweeps were asked for.
pub fn sweep() -> bool {
    std::env::var_os("PARD_SWEEP").is_some()
}
