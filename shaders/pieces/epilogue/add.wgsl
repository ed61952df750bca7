// Epilogue of a dot product: it is added to the output (the residual stream).
fn finish(index: u32, out: u32, value: f32, partner: f32) { y[index] += value; }
