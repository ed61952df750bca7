//! Keys and values as a cache of each format holds them.

use pard::low_level::gpu::CacheFormat;

use super::attention::half_rounded;

/// Below this a block is all 0.
const SMALLEST: f32 = 1e-30;

/// A block in 8 bits: numbers of −127..=127, and what each of them stands for.
///
/// `d = max |x| / 127`, `q = round(x / d)`.
/// **Source**: llama.cpp's Q8_0, with a scale of 32 bits.
pub fn quantised(block: &[f32]) -> (Vec<i8>, f32) {
    let largest = block.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    if largest < SMALLEST {
        return (vec![0; block.len()], 0.0);
    }
    let number = |x: &f32| (f64::from(*x) / f64::from(largest) * 127.0).round_ties_even() as i8;
    (block.iter().map(number).collect(), largest * (1.0 / 127.0))
}

/// `values`, rows of heads of `head_dim`, as the cache gives them back.
pub fn held(format: CacheFormat, head_dim: usize, values: &[f32]) -> Vec<f32> {
    match format {
        CacheFormat::F32 => values.to_vec(),
        CacheFormat::F16 => half_rounded(values),
        CacheFormat::Q8_0 => {
            let blocks = values.chunks(CacheFormat::block(head_dim)).map(quantised);
            blocks.flat_map(|(numbers, scale)| numbers.into_iter().map(move |q| f32::from(q) * scale)).collect()
        }
    }
}
