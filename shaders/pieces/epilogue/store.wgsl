// Epilogue of a dot product: it is stored.
fn finish(index: u32, out: u32, value: f32, partner: f32) { y[index] = value; }
