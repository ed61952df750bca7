//! `swiglu` and `swiglu_gradient` on the device.

use pard::low_level::ops::gradients::{Swiglu, SwigluGradient};

use super::{finite_differences, loss, wide};
use crate::ops::{compare, input, output, read, submit};
use crate::oracle::gradients::swiglu_gradient::swiglu_gradient;
use crate::oracle::swiglu::swiglu;
use crate::support::gpu::device;
use crate::support::random::Random;

const WIDTHS: [usize; 9] = [1, 3, 4, 63, 64, 65, 136, 257, 1000];

/// Both kernels against the oracles.
fn agree(width: usize, x: &[f32], dy: &[f32], context: &str) {
    let (device, rows) = (device(), dy.len() / width);
    let [y, dx] = [width, 2 * width].map(|width| output(device, rows, width));
    let (x_rows, dy_rows) = (input(device, 2 * width, x), input(device, width, dy));
    let forward = Swiglu::new(device, [&x_rows, &y]).expect("shapes that fit");
    let backward = SwigluGradient::new(device, [&x_rows, &dy_rows, &dx]).expect("shapes that fit");
    submit(device, |pass| {
        forward.encode(pass, rows);
        backward.encode(pass, rows);
    });
    compare(device, "swiglu", context, &read(device, "swiglu", &y, rows), &swiglu(x, width));
    let expected = swiglu_gradient(x, dy, width);
    compare(device, "swiglu_gradient", context, &read(device, "swiglu_gradient", &dx, rows), &expected);
}

#[test]
fn swiglu_and_its_gradient_agree_with_f64() {
    let mut random = Random::new(131);
    for width in WIDTHS {
        for rows in [1, 2, 7, 33] {
            for magnitude in [1e-30, 1e-3, 1.0, 8.0, 60.0] {
                let (x, dy) = (random.normals(rows * 2 * width, magnitude), random.normals(rows * width, 1.0));
                agree(width, &x, &dy, &format!("[{rows}, {width}], magnitude {magnitude}"));
            }
        }
    }
}

#[test]
fn gates_far_from_zero_and_where_the_slope_vanishes() {
    // silu has its minimum at -1.2784645.
    let gates = [
        0.0, -0.0, -1.0, -1.2784645, -20.0, -80.0, -86.9, -87.0, -87.1, -88.0, -88.8, -104.0, -1e3, -1e6, 20.0, 88.0,
        90.0, 1e6,
    ];
    for up in [1.0, -1.0, 1e-20, 1e6] {
        for slope in [1.0, -1e-20, 1e3] {
            let x: Vec<f32> = gates.into_iter().chain([up; 18]).collect();
            agree(gates.len(), &x, &[slope; 18], &format!("up {up}, slope {slope}, gates {gates:?}"));
        }
    }
}

#[test]
fn swiglu_gradient_is_swiglus() {
    let mut random = Random::new(132);
    let (width, rows) = (5, 40);
    for magnitude in [0.1, 1.0, 4.0] {
        let (x, dy) = (random.normals(rows * 2 * width, magnitude), random.normals(rows * width, 1.0));
        // Row by row, so that a difference is not drowned by the other rows' losses.
        for (x, dy) in x.chunks(2 * width).zip(dy.chunks(width)) {
            let gradient = swiglu_gradient(x, dy, width);
            finite_differences("swiglu_gradient", &wide(x), &gradient.values, 1e-5, |x| {
                loss(&swiglu(x, width).values, dy)
            });
        }
    }
}
