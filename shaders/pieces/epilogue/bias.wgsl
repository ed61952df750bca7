// Epilogue of a dot product: it is stored with a bias added.
@group(0) @binding(AT_EPILOGUE_OPERAND) var<storage, read> bias: array<f32>;       // [out]

fn finish(index: u32, out: u32, value: f32, partner: f32) { y[index] = value + bias[out]; }
