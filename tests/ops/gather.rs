//! `gather` on the device, seen through a product: what it makes gives the bits that an upload of the same rows gives.

use pard::low_level::gpu::{Device, KernelPlan};
use pard::low_level::ops::{Epilogue, Gather, Matmul, Matrix, Phase, RowRange, Step};

use super::matmul::{FORMATS, GPU_PLANS, upload, values_in};
use super::{input, output, read, same_bits, step, submit, words};
use crate::support::gpu::{cooperative_plan, device, device_with_binding_limit};
use crate::support::random::Random;

/// The rows `x`, multiplied.
fn product(device: &Device, plan: &KernelPlan, matrix: &Matrix, role: Phase, x: &[f32]) -> Vec<f32> {
    let (rows, outputs) = (x.len() / matrix.columns(), matrix.outputs());
    let step = step(device, Step { rows: rows as u32, ..Step::default() });
    let (x, y) = (input(device, matrix.columns(), x), output(device, rows, outputs));
    let op =
        Matmul::new(device, plan, &step, matrix, [&x, &y], Epilogue::Store, RowRange::All).expect("shapes that fit");
    submit(device, |pass| op.encode(pass, role, rows).expect("a kernel that compiles"));
    read(device, "gather", &y, rows)
}

/// Gathers `count` of `rows` rows, and compares them with an upload.
fn agrees(device: &Device, plan: &KernelPlan, [rows, columns]: [usize; 2], count: usize, random: &mut Random) {
    for format in FORMATS {
        let values = values_in(format, random, rows * columns, 1.0);
        let whole = upload(device, plan, format, [rows, columns], &values);
        // In any order, some twice, the first and the last among them.
        let mut ids = random.indices(count, rows);
        ids[count / 2] = 0;
        ids[count - 1] = rows as u32 - 1;
        let picked: Vec<f32> =
            ids.iter().flat_map(|&id| &values[id as usize * columns..][..columns]).copied().collect();
        let expected = upload(device, plan, format, [count, columns], &picked);
        let gathered = whole.gather(device, "gathered", &ids).expect("rows there are");
        assert_eq!((gathered.outputs(), gathered.bytes()), (count, expected.bytes()));
        for (role, x_rows) in [(Phase::Decode, 2), (Phase::Prefill, 17)] {
            let x = random.normals(x_rows * columns, 1.0);
            let [got, expected] = [&gathered, &expected].map(|matrix| product(device, plan, matrix, role, &x));
            same_bits(&format!("{count} of [{rows}, {columns}], {format:?}, {plan}"), &got, &expected);
        }
    }
}

#[test]
fn gathered_rows_are_the_rows_uploaded() {
    let mut random = Random::new(71);
    let plan = device().default_plan();
    for (shape, count) in [([1, 8], 1), ([33, 72], 5), ([257, 136], 257), ([65, 40], 300), ([1000, 24], 64)] {
        agrees(device(), &plan, shape, count, &mut random);
    }
    for plan in GPU_PLANS {
        agrees(device(), &plan, [257, 72], 100, &mut random);
    }
}

#[test]
fn parts_are_gathered_into_parts() {
    let limited = device_with_binding_limit(50_000);
    let mut random = Random::new(72);
    for count in [20, 350] {
        agrees(&limited, &limited.default_plan(), [1000, 136], count, &mut random);
    }
}

#[test]
fn row_scales_are_gathered_too() {
    let Some(plan) = cooperative_plan("gathering rows for cooperative products") else { return };
    let mut random = Random::new(73);
    agrees(device(), &plan, [257, 136], 100, &mut random);
    agrees(&device_with_binding_limit(50_000), &plan, [1000, 136], 350, &mut random);
}

#[test]
fn gathered_activations_are_the_rows_asked_for() {
    let mut random = Random::new(74);
    for (rows, width, count) in [(1, 4, 1), (7, 24, 19), (300, 576, 64), (33, 1000, 33), (9, 307, 5)] {
        let values = random.normals(rows * width, 1.0);
        let mut ids = random.indices(count, rows);
        ids[count - 1] = rows as u32 - 1;
        let (x, y) = (input(device(), width, &values), output(device(), count, width));
        let mut room = ids.clone();
        room.resize(y.rows, u32::MAX);
        let ids_on_device = words(device(), y.rows, &room);
        let op = Gather::new(device(), &ids_on_device, [&x, &y]).expect("shapes that fit");
        submit(device(), |pass| op.encode(pass, count));
        let expected: Vec<f32> = ids.iter().flat_map(|&id| &values[id as usize * width..][..width]).copied().collect();
        same_bits(&format!("{count} of [{rows}, {width}]"), &read(device(), "gather", &y, count), &expected);
    }
}
