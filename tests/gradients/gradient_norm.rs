//! `gradient_norm` and `gradient_norm_merge` on the device.

use pard::low_level::gpu::Buffer;
use pard::low_level::ops::gradients::GradientNorm;

use crate::comparison::check;
use crate::ops::submit;
use crate::oracle::gradients::gradient_norm::gradient_norm;
use crate::support::gpu::device;
use crate::support::random::Random;

/// The norm of `gradients`, whose buffers hold NaN past their values.
fn run(gradients: &[Vec<f32>]) -> f32 {
    let buffers: Vec<(Buffer, usize)> = gradients
        .iter()
        .map(|values| {
            let padded: Vec<f32> = values.iter().copied().chain([f32::NAN; 8]).collect();
            (Buffer::with_values(device(), "gradient", &padded).expect("a small buffer"), values.len())
        })
        .collect();
    let buffers: Vec<(&Buffer, usize)> = buffers.iter().map(|(buffer, values)| (buffer, *values)).collect();
    let op = GradientNorm::new(device(), &buffers).expect("shapes that fit");
    op.norm().write(device(), 0, &[f32::NAN]);
    submit(device(), |pass| op.encode(pass));
    op.norm().read(device(), 0, 1).expect("reading back")[0]
}

#[test]
fn gradient_norm_agrees_with_f64() {
    let mut random = Random::new(95);
    let many: Vec<usize> = (1..100).map(|index| 4 * index).collect();
    for shapes in [&[4][..], &[256, 8], &[16384, 16388, 16380, 4], &[100_000, 12], &many] {
        for magnitude in [1e-12, 1.0, 1e12] {
            let gradients: Vec<Vec<f32>> = shapes.iter().map(|&len| random.normals(len, magnitude)).collect();
            let (norm, bound) = gradient_norm(&gradients);
            check(
                "gradient_norm",
                &format!("{shapes:?}, magnitude {magnitude}"),
                &[run(&gradients)],
                &[norm],
                &[bound],
            );
        }
    }
    assert_eq!(run(&[vec![0.0; 300], vec![0.0; 4]]), 0.0);
}

#[test]
fn gradient_norm_sees_every_value() {
    for (first, second) in [(16384 + 60, 8), (4, 16384)] {
        for at in [0, 3, first - 1, first, first + second - 1] {
            let mut gradients = [vec![0.0; first], vec![0.0; second]];
            let (buffer, at) = if at < first { (0, at) } else { (1, at - first) };
            gradients[buffer][at] = -3.0;
            assert_eq!(run(&gradients), 3.0, "at {at} of buffer {buffer}");
        }
    }
}
