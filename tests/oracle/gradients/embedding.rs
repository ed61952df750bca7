//! The gradient of an embedding table.

use super::super::Expected;
use crate::comparison::{FLUSH, gamma};

/// `dtable[id] + Σ dx[row]` over the rows that read `id`: `ids[row]` is what a row reads, if it counts.
///
/// **Shapes**: `dtable` and the result `[vocab, width]`, `ids` `[rows]`, `dx` `[rows, width]`.
pub fn embedding_gradient(dtable: &[f32], width: usize, ids: &[Option<u32>], dx: &[f32]) -> Expected {
    let mut sums: Vec<(f64, f64, usize)> =
        dtable.iter().map(|&value| (f64::from(value), f64::from(value).abs(), 0)).collect();
    for (&id, row) in ids.iter().zip(dx.chunks_exact(width)) {
        let Some(id) = id else { continue };
        for (sum, &value) in sums[id as usize * width..].iter_mut().zip(row) {
            sum.0 += f64::from(value);
            sum.1 += f64::from(value).abs();
            sum.2 += 1;
        }
    }
    let mut expected = Expected::default();
    for (sum, magnitude, count) in sums {
        let count = count as f64;
        expected.push(sum, if count == 0.0 { 0.0 } else { gamma(count + 8.0) * magnitude + count * FLUSH });
    }
    expected
}
