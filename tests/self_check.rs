//! The checks that a user's own driver is put to.

use pard::Error;
use pard::low_level::gpu::{AdapterQuery, Device};
use pard::low_level::ops::{check_products, check_row_invariance, check_values};

use crate::ops::integer::INTEGER_PLANS;
use crate::support::edited_shaders::edited;
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
    let shaders = edited("pieces/planes/two.wgsl", |text| text.replace("x[at + 2u], x[at + 3u]", "vec4(0u), vec4(0u)"));
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
    let shaders = edited("shared/row_scale.wgsl", |text| text.replace("1.0 / sqrt(", "1.0001 / sqrt("));
    let device = Device::open_with(&AdapterQuery::default(), shaders).expect("an adapter");
    match check_values(&device, &device.default_plan()) {
        Err(Error::Gpu { what, reason }) => {
            assert!(what == "self-check" && reason.contains("update the driver"), "{what}: {reason}");
        }
        other => panic!("{other:?}"),
    }
}
