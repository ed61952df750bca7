//! Scales for values to be quantised, found as llama.cpp's reference finds them (`ggml-quants.c`): the same searches over
//! the same candidates, so that a model quantised here is as good as one quantised there.

use super::blocks::put_half;

/// Below this a group of weights counts as zeros.
pub const NOTHING: f32 = 1e-15;

/// One over `value`, or 0 for 0.
pub fn inverse(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { 1.0 / value }
}

/// The value of the largest magnitude, with its sign.
pub fn extreme(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most: f32, &value| if value.abs() > most.abs() { value } else { most })
}

/// The least and the largest value.
fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((values[0], values[0]), |(least, most), &value| (least.min(value), most.max(value)))
}

/// The largest magnitude of `scale * q + minimum` for q from 0 to `most`.
pub fn largest_between(scale: f32, minimum: f32, most: f32) -> f32 {
    minimum.abs().max((most * scale + minimum).abs())
}

/// Writes the scale of numbers from 0 to 2 `half` - 1 that stand for both signs, and gives the number of a value.
pub fn put_scale(values: &[f32], block: &mut [u8], half: f32) -> impl Fn(f32) -> u8 + use<> {
    let scale = extreme(values) / -half;
    put_half(block, 0, scale);
    move |value| ((value * inverse(scale) + half + 0.5) as u8).min(2 * half as u8 - 1)
}

/// Writes scale and minimum of numbers from 0 to `largest`, and gives the number of a value.
pub fn put_scale_and_minimum(values: &[f32], block: &mut [u8], largest: f32) -> impl Fn(f32) -> u8 + use<> {
    let (least, most) = range(values);
    let scale = (most - least) / largest;
    put_half(block, 0, scale);
    put_half(block, 2, least);
    move |value| (((value - least) * inverse(scale) + 0.5) as u8).min(largest as u8)
}

/// The number from 0 to `most` next to `value`; halves go to the even one, as everywhere below.
pub fn nearest(value: f32, most: f32) -> f32 {
    value.round_ties_even().clamp(0.0, most)
}

/// The scale of scales, and the numbers from 0 to `most` next to `values` in its units; none is negative.
pub fn scales_of_scales(values: impl Iterator<Item = f32> + Clone, most: f32) -> (f32, Vec<u8>) {
    let largest = values.clone().fold(0.0, f32::max);
    let factor = if largest > 0.0 { most / largest } else { 0.0 };
    (largest / most, values.map(|value| nearest(factor * value, most) as u8).collect())
}

/// Candidates of a search for scale and minimum: numbers up to `largest`, stretched by `first`, `first` + 0.1 .. up to
/// `first` + 0.1 · `steps`.
#[derive(Clone, Copy)]
pub struct Search {
    pub largest: f32,
    pub first: f32,
    pub steps: usize,
    /// Weighs values by their magnitudes and sums differences; otherwise the mean is added to the weights, and
    /// differences are squared.
    pub by_magnitude: bool,
}

/// Scale and minimum (its negative) of a group, such that `scale * q - minimum` with q from 0 to the largest number comes
/// closest to the values, the larger ones weighing more.
pub fn scale_and_minimum(values: &[f32], search: Search) -> (f32, f32) {
    let Search { largest, by_magnitude, .. } = search;
    let mean_square = values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
    let least_weight = if by_magnitude { 0.0 } else { mean_square.sqrt() };
    let weights: Vec<f32> = values.iter().map(|value| least_weight + value.abs()).collect();
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
            weight * if by_magnitude { difference.abs() } else { difference * difference }
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

/// Sums for a least-squares fit of `scale * number` to values, each weighing as its square.
#[derive(Clone, Copy, Default)]
pub struct Fit {
    /// Weighted products of numbers and values.
    pub products: f32,
    /// Weighted squares of numbers.
    pub squares: f32,
}

impl Fit {
    /// Of `values`, whose numbers `number` gives.
    pub fn new(values: &[f32], number: impl Fn(f32) -> f32) -> Fit {
        values.iter().fold(Fit::default(), |fit, &value| fit.with(value, number(value)))
    }

    /// With one value more.
    pub fn with(self, value: f32, number: f32) -> Fit {
        let weight = value * value;
        Fit { products: self.products + weight * value * number, squares: self.squares + weight * number * number }
    }

    /// The best scale; 0 if all numbers are 0.
    pub fn scale(self) -> f32 {
        self.products * inverse(self.squares)
    }

    /// The scale of `self`, or that of the last of `others` that came closer than all before it.
    pub fn best_scale(self, others: impl Iterator<Item = Fit>) -> f32 {
        let mut scale = self.scale();
        let mut best = scale * self.products;
        for Fit { products, squares } in others {
            if squares > 0.0 && products * products > best * squares {
                scale = products / squares;
                best = scale * products;
            }
        }
        scale
    }

    /// Returns `true` if its scale comes closer than that of `other`.
    pub fn is_better(self, other: Fit) -> bool {
        self.squares > 0.0
            && self.products * self.products * other.squares > other.products * other.products * self.squares
    }
}
