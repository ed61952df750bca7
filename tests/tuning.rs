//! Tables of measurements: what is measured of a model, kept and found again.

use std::cell::Cell;
use std::sync::Arc;

use pard::Error;
use pard::low_level::gpu::{AdapterQuery, Composition, Device};
use pard::model::{Measured, Tuning, WeightDtype, Weights};

use crate::support::edited_shaders::edited;
use crate::support::gpu::{cooperative_plan, device, upload};
use crate::support::memory::Memory;
use crate::support::tiny_model::Recipe;

#[test]
fn cooperative_products_have_no_variants_to_measure() {
    let Some(plan) = cooperative_plan("a table for cooperative products") else { return };
    let mut model = upload(&Recipe::qwen3(5), &plan);
    let tuning = Tuning::measure(&mut model, &|_| true).expect("a measurement").expect("it was not ended");
    assert_eq!(tuning.choices().count(), 0);
    assert!(tuning.pass_cost().of(1.0) > 0.0);
    let folder = tempfile::tempdir().expect("a temporary folder");
    tuning.save(folder.path(), &model).expect("a table is written");
    assert_eq!(Tuning::load(folder.path(), &model), Some(tuning));
    // The plain kernels have another table.
    let plain = upload(&Recipe::qwen3(5), &device().default_plan());
    assert_eq!(Tuning::load(folder.path(), &plain), None);
}

/// An assertion in the shader stands for a driver whose compiler fails on one variant.
#[test]
fn a_variant_that_does_not_compile_is_left_out() {
    let shaders = edited("kernels/matmul_rows.wgsl", |text| format!("{text}\nconst_assert ROWS != 8u;\n"));
    let device = Device::open_with(&AdapterQuery::default(), shaders).expect("an adapter");
    let recipe = Recipe::qwen3(5);
    let memory = Memory::new(recipe.tensors());
    let plan = device.default_plan();
    let model = Weights::upload(&device, &plan, &recipe.config, &memory, WeightDtype::Compact, &|_, _| ());
    let mut model = Arc::new(model.expect("upload"));
    let (mut measured, going) = (Measured::default(), Counter::new(5));
    let ended = Tuning::measure_on(&mut model, &mut measured, &|_| going.next()).expect("a measurement");
    assert_eq!(ended, None, "four numbers of rows are enough");
    assert!(!measured.left_out().is_empty(), "eight rows at once were tried");
    for left in measured.left_out() {
        assert_eq!(left.variant().rows, 8);
        assert!(left.reason().contains("matmul_rows (") && left.reason().contains("ROWS = 8"), "{}", left.reason());
    }
}

/// The device goes while a variant is measured, which is not tried on the next one.
#[test]
fn a_variant_that_costs_the_device_is_left_out_on_the_next_one() {
    let recipe = Recipe::qwen3(5);
    let memory = Memory::new(recipe.tensors());
    let load = |device: &Device| {
        let plan = device.default_plan();
        let model = Weights::upload(device, &plan, &recipe.config, &memory, WeightDtype::Compact, &|_, _| ());
        Arc::new(model.expect("upload"))
    };
    let open = || Device::open(&AdapterQuery::default()).expect("an adapter");
    let (first, mut measured, going) = (open(), Measured::default(), Counter::new(2));
    let lose = |_: f64| {
        if !going.next() {
            first.destroy();
        }
        true
    };
    let lost = Tuning::measure_on(&mut load(&first), &mut measured, &lose);
    assert!(matches!(lost, Err(Error::DeviceLost { .. })), "{lost:?}");
    let [left] = measured.left_out() else { panic!("one variant was at work: {measured:?}") };
    let variant = left.variant();
    assert_eq!(variant.rows, 4, "the first number of rows was done");

    let (second, going) = (open(), Counter::new(3));
    let ended = Tuning::measure_on(&mut load(&second), &mut measured, &|_| going.next()).expect("a measurement");
    assert_eq!((ended, measured.left_out().len()), (None, 1));
    let tried = |composition: &Composition, name: &str| {
        composition.constants.iter().find(|(constant, _)| *constant == name).map_or(0, |(_, value)| *value)
    };
    let compositions = second.compositions();
    let of_four = compositions.iter().filter(|composition| tried(composition, "ROWS") == 4);
    let of_four: Vec<_> = of_four.filter(|composition| composition.files[0] == "matmul_rows").collect();
    assert!(!of_four.is_empty(), "other variants of four rows were tried");
    for composition in of_four {
        let input = if variant.uniform { "input/uniform" } else { "input/storage" };
        let is_same = tried(composition, "BLOCKS") == variant.blocks
            && tried(composition, "AHEAD") == u32::from(variant.ahead)
            && composition.files.contains(&input);
        assert!(!is_same, "{composition}");
    }
}

/// Says yes a number of times, but the last.
struct Counter(Cell<usize>);

impl Counter {
    fn new(calls: usize) -> Counter {
        Counter(Cell::new(calls))
    }

    fn next(&self) -> bool {
        self.0.set(self.0.get().saturating_sub(1));
        self.0.get() > 0
    }
}
