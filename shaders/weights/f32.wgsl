// F32 weights: eight values take two loads.
@group(0) @binding(2) var<storage, read> weights: array<vec4<f32>>;

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let at = 2u * ((start + piece) * LANES + lane);
    return Eight(weights[at], weights[at + 1u]);
}

// A word of the 16 bytes that hold word `at`, for shared/ahead.wgsl.
fn word_at(at: u32) -> u32 { return bitcast<u32>(weights[at / 4u].x); }
