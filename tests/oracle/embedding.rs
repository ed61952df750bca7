//! Rows of a table, by token id.

use super::Expected;
use crate::comparison::flushed;

/// `y[row] = table[ids[row]]`.
///
/// **Shapes**: `table` `[vocab, width]`, `ids` `[rows]`, the result `[rows, width]`.
/// **Bound**: none, since every stored type widens to f32 exactly; only a subnormal may become zero.
pub fn embedding(table: &[f32], width: usize, ids: &[u32]) -> Expected {
    let mut y = Expected::default();
    for &id in ids {
        for &value in &table[id as usize * width..][..width] {
            y.push(f64::from(value), flushed(f64::from(value)));
        }
    }
    y
}
