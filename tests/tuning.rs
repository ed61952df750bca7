//! Tables of measurements: what is measured of a model, kept and found again.

use pard_engine::model::Tuning;

use crate::support::gpu::{cooperative_plan, device, upload};
use crate::support::tiny_model::Recipe;

#[test]
fn cooperative_products_have_no_variants_to_measure() {
    let Some(plan) = cooperative_plan("a table for cooperative products") else { return };
    let mut model = upload(&Recipe::qwen3(5), &plan);
    let tuning = Tuning::measure(&mut model, &|_| true).expect("a measurement").expect("it was not ended");
    assert_eq!(tuning.variants().count(), 0);
    assert!(tuning.pass_cost().of(1.0) > 0.0);
    let folder = tempfile::tempdir().expect("a temporary folder");
    tuning.save(folder.path(), &model).expect("a table is written");
    assert_eq!(Tuning::load(folder.path(), &model), Some(tuning));
    // The plain kernels have another table.
    let plain = upload(&Recipe::qwen3(5), &device().default_plan());
    assert_eq!(Tuning::load(folder.path(), &plain), None);
}
