//! Floats become GGUF's blocks as llama.cpp's reference makes them (`ggml-quants.c`): the same searches over the same
//! candidates, so that a model quantised here is as good as one quantised there.

use half::f16;

/// Below this a group of weights counts as zeros.
const NOTHING: f32 = 1e-15;

/// Pairs each `VALUES` values with their block of `BYTES`.
fn blocks<'a, const VALUES: usize, const BYTES: usize>(
    values: &'a [f32],
    out: &'a mut [u8],
) -> impl Iterator<Item = (&'a [f32; VALUES], &'a mut [u8; BYTES])> {
    values.as_chunks::<VALUES>().0.iter().zip(out.as_chunks_mut::<BYTES>().0)
}

fn put_half(block: &mut [u8], at: usize, value: f32) -> f32 {
    let half = f16::from_f32(value);
    block[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

/// One over `value`, or 0 for 0.
fn inverse(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { 1.0 / value }
}

/// The value of the largest magnitude, with its sign.
fn extreme(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most: f32, &value| if value.abs() > most.abs() { value } else { most })
}

/// The least and the largest value.
fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((values[0], values[0]), |(least, most), &value| (least.min(value), most.max(value)))
}

pub fn q8_0(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks::<32, 34>(values, out) {
        let scale = extreme(values).abs() / 127.0;
        put_half(block, 0, scale);
        for (byte, value) in block[2..].iter_mut().zip(values) {
            *byte = (value * inverse(scale)).round() as i8 as u8;
        }
    }
}

/// Writes the scale of numbers from 0 to 2 `half` - 1 that stand for both signs, and gives the number of a value.
fn put_scale(values: &[f32], block: &mut [u8], half: f32) -> impl Fn(f32) -> u8 + use<> {
    let scale = extreme(values) / -half;
    put_half(block, 0, scale);
    move |value| ((value * inverse(scale) + half + 0.5) as u8).min(2 * half as u8 - 1)
}

/// Writes scale and minimum of numbers from 0 to `largest`, and gives the number of a value.
fn put_scale_and_minimum(values: &[f32], block: &mut [u8], largest: f32) -> impl Fn(f32) -> u8 + use<> {
    let (least, most) = range(values);
    let scale = (most - least) / largest;
    put_half(block, 0, scale);
    put_half(block, 2, least);
    move |value| (((value - least) * inverse(scale) + 0.5) as u8).min(largest as u8)
}

/// Writes 4-bit numbers, `number` of each of 32 values.
fn put_nibbles(values: &[f32; 32], bytes: &mut [u8], number: impl Fn(f32) -> u8) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = number(values[index]) & 15 | (number(values[index + 16]) & 15) << 4;
    }
}

/// Writes 5-bit numbers: their fifth bits first, then the others.
fn put_fives(values: &[f32; 32], bytes: &mut [u8], number: impl Fn(f32) -> u8) {
    let (fifths, nibbles) = bytes.split_at_mut(4);
    put_nibbles(values, nibbles, &number);
    fifths.fill(0);
    for (index, &value) in values.iter().enumerate() {
        fifths[index / 8] |= number(value) >> 4 << (index % 8);
    }
}

pub fn q4_0(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks::<32, 18>(values, out) {
        let number = put_scale(values, block, 8.0);
        put_nibbles(values, &mut block[2..], number);
    }
}

pub fn q4_1(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks::<32, 20>(values, out) {
        let number = put_scale_and_minimum(values, block, 15.0);
        put_nibbles(values, &mut block[4..], number);
    }
}

pub fn q5_0(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks::<32, 22>(values, out) {
        let number = put_scale(values, block, 16.0);
        put_fives(values, &mut block[2..], number);
    }
}

pub fn q5_1(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks::<32, 24>(values, out) {
        let number = put_scale_and_minimum(values, block, 31.0);
        put_fives(values, &mut block[4..], number);
    }
}

/// The number from 0 to `most` next to `value`; halves go to the even one, as everywhere below.
fn nearest(value: f32, most: f32) -> f32 {
    value.round_ties_even().clamp(0.0, most)
}

/// Candidates of a search for scale and minimum: numbers up to `largest`, stretched by `first`, `first` + 0.1 .. up to
/// `first` + 0.1 · `steps`.
#[derive(Clone, Copy)]
struct Search {
    largest: f32,
    first: f32,
    steps: usize,
}

/// Scale and minimum (its negative) of a group of 32, such that `scale * q - minimum` with q from 0 to the largest number
/// comes closest to the values, the larger ones weighing more.
fn scale_and_minimum(values: &[f32], search: Search) -> (f32, f32) {
    let largest = search.largest;
    let mean_square = values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
    let weights: Vec<f32> = values.iter().map(|value| mean_square.sqrt() + value.abs()).collect();
    let (mut least, mut most) = (0.0f32.min(values[0]), values[0]);
    let (mut sum_w, mut sum_x) = (0.0, 0.0);
    for (value, weight) in values.iter().zip(&weights) {
        (least, most) = (least.min(*value), most.max(*value));
        sum_w += weight;
        sum_x += weight * value;
    }
    if most <= least {
        return (0.0, -least);
    }
    let error = |scale: f32, minimum: f32, factor: f32| -> f32 {
        let of = |(value, weight): (&f32, &f32)| {
            let difference = scale * nearest(factor * (value - least), largest) + minimum - value;
            weight * difference * difference
        };
        values.iter().zip(&weights).map(of).sum()
    };
    let span = most - least;
    let mut best = (span / largest, least);
    let mut best_error = error(best.0, best.1, largest / span);
    for step in 0..=search.steps {
        let factor = (largest + search.first + 0.1 * step as f32) / span;
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
        for (value, weight) in values.iter().zip(&weights) {
            let l = nearest(factor * (value - least), largest);
            sum_l += weight * l;
            sum_l2 += weight * l * l;
            sum_xl += weight * l * value;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant <= 0.0 {
            continue;
        }
        let mut scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let mut minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        if minimum > 0.0 {
            (scale, minimum) = (sum_xl / sum_l2, 0.0);
        }
        let this_error = error(scale, minimum, factor);
        if this_error < best_error {
            (best, best_error) = ((scale, minimum), this_error);
        }
    }
    (best.0, -best.1)
}

/// Finds the scales of 256 values, writes them to the block's first 16 bytes, and hands each value's place and number to
/// `put`.
fn with_six_bit_scales(
    values: &[f32; 256],
    block: &mut [u8],
    search: Search,
    mut put: impl FnMut(&mut [u8], usize, u8),
) {
    block.fill(0);
    let groups = values.as_chunks::<32>().0;
    let found: Vec<(f32, f32)> = groups.iter().map(|group| scale_and_minimum(group, search)).collect();
    let most_scale = found.iter().fold(0.0f32, |most, (scale, _)| most.max(*scale));
    let most_minimum = found.iter().fold(0.0f32, |most, (_, minimum)| most.max(*minimum));
    let scale_of_scales = put_half(block, 0, most_scale / 63.0);
    let scale_of_minima = put_half(block, 2, most_minimum / 63.0);
    let six_bits = |value: f32, most: f32| nearest(63.0 * inverse(most) * value, 63.0) as u8;
    for (index, (group, (scale, minimum))) in groups.iter().zip(found).enumerate() {
        let (scale, minimum) = (six_bits(scale, most_scale), six_bits(minimum, most_minimum));
        if index < 4 {
            block[4 + index] |= scale;
            block[8 + index] |= minimum;
        } else {
            block[8 + index] = scale & 15 | (minimum & 15) << 4;
            block[index] |= scale >> 4 << 6;
            block[4 + index] |= minimum >> 4 << 6;
        }
        let (scale, minimum) = (scale_of_scales * f32::from(scale), scale_of_minima * f32::from(minimum));
        for (offset, value) in group.iter().enumerate() {
            put(block, 32 * index + offset, nearest((value + minimum) * inverse(scale), search.largest) as u8);
        }
    }
}

/// Adds the low bits of number `at` of 256 to bytes that 64 of them share by 32.
fn put_wide_nibble(bytes: &mut [u8], at: usize, number: u8) {
    bytes[at / 64 * 32 + at % 32] |= (number & 15) << (at / 32 % 2 * 4);
}

pub fn q4_k(values: &[f32], out: &mut [u8]) {
    let search = Search { largest: 15.0, first: -1.0, steps: 20 };
    for (values, block) in blocks::<256, 144>(values, out) {
        with_six_bit_scales(values, block, search, |block, at, number| put_wide_nibble(&mut block[16..], at, number));
    }
}

pub fn q5_k(values: &[f32], out: &mut [u8]) {
    let search = Search { largest: 31.0, first: -0.5, steps: 15 };
    for (values, block) in blocks::<256, 176>(values, out) {
        with_six_bit_scales(values, block, search, |block, at, number| {
            put_wide_nibble(&mut block[48..], at, number);
            block[16 + at % 32] |= number >> 4 << (at / 32);
        });
    }
}

/// The scale of a group of 16, such that `scale * q` with q from -32 to 31 comes closest to the values, each weighing as
/// its square.
fn scale_of_16(values: &[f32]) -> f32 {
    let most = extreme(values);
    if most.abs() < NOTHING {
        return 0.0;
    }
    let fit = |factor: f32| {
        values.iter().fold((0.0f32, 0.0f32), |(sum_lx, sum_l2), value| {
            let l = (factor * value).round_ties_even().clamp(-32.0, 31.0);
            let weight = value * value;
            (sum_lx + weight * value * l, sum_l2 + weight * l * l)
        })
    };
    let (sum_lx, sum_l2) = fit(-32.0 / most);
    let mut scale = sum_lx * inverse(sum_l2);
    let mut best = scale * sum_lx;
    for step in (-9..=9).filter(|&step| step != 0) {
        let (sum_lx, sum_l2) = fit(-(32.0 + 0.1 * step as f32) / most);
        if sum_l2 > 0.0 && sum_lx * sum_lx > best * sum_l2 {
            scale = sum_lx / sum_l2;
            best = scale * sum_lx;
        }
    }
    scale
}

pub fn q6_k(values: &[f32], out: &mut [u8]) {
    for (values, block) in blocks::<256, 210>(values, out) {
        block.fill(0);
        let groups = values.as_chunks::<16>().0;
        let scales: Vec<f32> = groups.iter().map(|group| scale_of_16(group)).collect();
        let most = extreme(&scales);
        if most.abs() < NOTHING {
            continue;
        }
        let factor = -128.0 / most;
        let scale_of_scales = put_half(block, 208, 1.0 / factor);
        for (index, (group, scale)) in groups.iter().zip(scales).enumerate() {
            let scale = (factor * scale).round_ties_even().min(127.0) as i8;
            block[192 + index] = scale as u8;
            let inverse = inverse(scale_of_scales * f32::from(scale));
            for (offset, value) in group.iter().enumerate() {
                let number = ((value * inverse).round_ties_even().clamp(-32.0, 31.0) as i8 + 32) as u8;
                let at = 16 * index + offset;
                let (section, quarter, byte) = (at / 128, at / 32 % 4, at % 32);
                block[section * 64 + quarter % 2 * 32 + byte] |= (number & 15) << (quarter / 2 * 4);
                block[128 + section * 32 + byte] |= number >> 4 << (quarter * 2);
            }
        }
    }
}
