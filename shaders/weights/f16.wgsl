// F16 weights.
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let w = weights[(start + piece) * LANES + lane];
    return Eight(vec4(unpack2x16float(w.x), unpack2x16float(w.y)), vec4(unpack2x16float(w.z), unpack2x16float(w.w)));
}

// A word of the 16 bytes that hold word `at`, for shared/ahead.wgsl.
fn word_at(at: u32) -> u32 { return weights[at / 4u].x; }
