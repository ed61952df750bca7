//! The checks that a user's own driver is put to.

use std::path::Path;

use pard::Error;
use pard::low_level::gpu::{AdapterQuery, Device, Shaders};
use pard::low_level::ops::{check_products, check_row_invariance, check_values};

use crate::ops::integer::INTEGER_PLANS;
use crate::support::gpu::device;

#[test]
fn a_good_driver_passes() {
    let plan = device().default_plan();
    check_values(device(), &plan).expect("right values");
    check_row_invariance(device(), &plan, 17).expect("the same bits");
}

#[test]
fn a_good_driver_passes_in_integers() {
    for plan in &INTEGER_PLANS {
        check_products(device(), plan).expect("right values");
        check_row_invariance(device(), plan, 17).expect("the same bits");
    }
}

/// The low bytes of x left out.
#[test]
fn a_driver_that_multiplies_bytes_wrongly_is_found_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let right = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/planes/two.wgsl"));
    let right = right.expect("a piece of the kernel");
    let wrong = right.replace("x[at + 2u], x[at + 3u]", "vec4(0u), vec4(0u)");
    assert_ne!(wrong, right);
    std::fs::create_dir(folder.path().join("planes")).expect("a folder in it");
    std::fs::write(folder.path().join("planes/two.wgsl"), wrong).expect("a kernel");
    let shaders = Shaders::from_folder(folder.path()).expect("shaders");
    let device = Device::open_with(&AdapterQuery::default(), shaders).expect("an adapter");
    match check_products(&device, &INTEGER_PLANS[0]) {
        Err(Error::Gpu { what, reason }) => {
            assert!(what == "self-check" && reason.contains("--quantised-products float"), "{what}: {reason}");
        }
        other => panic!("{other:?}"),
    }
}

/// A kernel that is a little wrong stands for a driver that compiles it so.
#[test]
fn a_driver_that_computes_wrongly_is_found_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let right = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/shared/row_scale.wgsl"));
    let right = right.expect("a piece of the kernel");
    let wrong = right.replace("1.0 / sqrt(", "1.0001 / sqrt(");
    assert_ne!(wrong, right);
    std::fs::create_dir(folder.path().join("shared")).expect("a folder in it");
    std::fs::write(folder.path().join("shared/row_scale.wgsl"), wrong).expect("a kernel");
    let shaders = Shaders::from_folder(folder.path()).expect("shaders");
    let device = Device::open_with(&AdapterQuery::default(), shaders).expect("an adapter");
    match check_values(&device, &device.default_plan()) {
        Err(Error::Gpu { what, reason }) => {
            assert!(what == "self-check" && reason.contains("update the driver"), "{what}: {reason}");
        }
        other => panic!("{other:?}"),
    }
}
