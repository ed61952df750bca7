// Epilogue of a dot product: it is stored with the residual stream before it added.
@group(0) @binding(AT_EPILOGUE_OPERAND) var<storage, read> residual: array<f32>;   // [rows, out]

fn finish(index: u32, out: u32, value: f32, partner: f32) { y[index] = residual[index] + value; }
