//! The greedy choice.

use super::Real;

/// The index of the largest element of each row; the lowest one wins a tie.
///
/// **Shapes**: `logits` `[rows, width]`, the result `[rows]`.
pub fn argmax<X: Real>(logits: &[X], width: usize) -> Vec<u32> {
    let choose = |row: &[X]| {
        let mut best = 0;
        for index in 1..width {
            if row[index].into() > row[best].into() {
                best = index;
            }
        }
        best as u32
    };
    logits.chunks_exact(width).map(choose).collect()
}
