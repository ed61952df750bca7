//! Scales and minima that Q4_K and Q5_K have in common: w = d * s * q - dmin * m, with s and m of 6 bits for 32 weights at a
//! time, d and dmin for 256. They are a block's first 16 bytes: d, dmin, 12 bytes of all s and m.

use super::bits::word;
use super::blocks::{half, half_bits, put_half};
use super::search::{Search, inverse, largest_between, nearest, scale_and_minimum, scales_of_scales};

/// The scale and the minimum of group `group` of eight, as numbers. Those of groups 4 to 7 keep their upper two bits in the
/// bytes of groups 0 to 3.
fn numbers(block: &[u8], group: usize) -> (u8, u8) {
    let packed = &block[4..16];
    if group < 4 {
        return (packed[group] & 63, packed[group + 4] & 63);
    }
    (packed[group + 4] & 15 | packed[group - 4] >> 6 << 4, packed[group + 4] >> 4 | packed[group] >> 6 << 4)
}

/// The scale and the minimum of group `group`.
pub fn scales(block: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = numbers(block, group);
    (half(block, 0) * f32::from(scale), half(block, 2) * f32::from(minimum))
}

/// A bound of the magnitude of a block's weights, whose numbers are at most `most`.
pub fn largest(block: &[u8], most: f32) -> f32 {
    let groups = (0..8).map(|group| scales(block, group));
    groups.map(|(scale, minimum)| largest_between(scale, -minimum, most)).fold(0.0, f32::max)
}

/// The four words of the scales: d and dmin; the low four bits of all s, those of all m; the high two bits of all s and m.
pub fn scale_words(block: &[u8], words: &mut [u32]) {
    let numbers = |group| numbers(block, group);
    words[0] = half_bits(block, 0) | half_bits(block, 2) << 16;
    words[1] = word(4, |group| numbers(group).0 & 15);
    words[2] = word(4, |group| numbers(group).1 & 15);
    words[3] = word(2, |at| if at < 8 { numbers(at).0 >> 4 } else { numbers(at - 8).1 >> 4 });
}

/// Finds the scales of 256 values, writes them to the block, and hands each value's place and number to `put`.
pub fn store(values: &[f32; 256], block: &mut [u8], search: Search, mut put: impl FnMut(&mut [u8], usize, u8)) {
    block.fill(0);
    let groups = values.as_chunks::<32>().0;
    let found: Vec<(f32, f32)> = groups.iter().map(|group| scale_and_minimum(group, search)).collect();
    let (scale_of_scales, scale_numbers) = scales_of_scales(found.iter().map(|(scale, _)| *scale), 63.0);
    let (scale_of_minima, minimum_numbers) = scales_of_scales(found.iter().map(|(_, minimum)| *minimum), 63.0);
    put_half(block, 0, scale_of_scales);
    put_half(block, 2, scale_of_minima);
    for (index, (scale, minimum)) in scale_numbers.into_iter().zip(minimum_numbers).enumerate() {
        if index < 4 {
            block[4 + index] |= scale;
            block[8 + index] |= minimum;
        } else {
            block[8 + index] = scale & 15 | (minimum & 15) << 4;
            block[index] |= scale >> 4 << 6;
            block[4 + index] |= minimum >> 4 << 6;
        }
    }
    for (index, group) in groups.iter().enumerate() {
        let (scale, minimum) = scales(block, index);
        for (offset, value) in group.iter().enumerate() {
            put(block, 32 * index + offset, nearest((value + minimum) * inverse(scale), search.largest) as u8);
        }
    }
}
