//! Values of a file's tensors, read as far as memory allows.

use pard::checkpoint::{Checkpoint, TensorInfo};

/// Values of a tensor that are widened at most: a file may say that it has more than there are bytes.
const VALUES: usize = 1 << 20;

/// Reads rows of every tensor of `checkpoint`; `also` is called with each tensor and its number of rows and columns.
pub fn read_all(checkpoint: &dyn Checkpoint, mut also: impl FnMut(&TensorInfo, usize, usize)) {
    for tensor in checkpoint.tensors() {
        let columns = tensor.shape.last().copied().unwrap_or(1);
        let rows = tensor.shape.iter().rev().skip(1).product::<usize>();
        if columns > VALUES {
            continue;
        }
        let count = rows.min(VALUES / columns.max(1));
        let mut values = vec![0.0; count * columns];
        let _ = checkpoint.read_rows(&tensor.name, 0..count, &mut values);
        also(tensor, count, columns);
    }
}
