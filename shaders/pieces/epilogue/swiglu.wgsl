// Epilogue of two dot products: silu(gate) * up, silu(g) = g / (1 + exp(-g)). Shazeer 2020, arXiv:2002.05202.
fn finish(index: u32, out: u32, gate: f32, up: f32) {
    // Clamped where silu is -1e-36 and smaller: exp must not overflow, since a shader may assume that nothing does.
    let g = max(gate, -87.0);
    y[index] = g / (1.0 + exp(-g)) * up;
}
