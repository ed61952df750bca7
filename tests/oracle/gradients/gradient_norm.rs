//! The norm of gradients.

use crate::comparison::{FLUSH, gamma};

/// `√(Σ g²)` over all of `gradients`, and its bound: a dot product of positive terms, in any order, and a square root.
pub fn gradient_norm(gradients: &[Vec<f32>]) -> (f64, f64) {
    let squares: f64 = gradients.iter().flatten().map(|&g| f64::from(g).powi(2)).sum();
    let count = gradients.iter().map(Vec::len).sum::<usize>() as f64;
    let norm = squares.sqrt();
    (norm, norm * (0.5 * gamma(count) + gamma(3.0)) + (count * FLUSH).sqrt())
}
