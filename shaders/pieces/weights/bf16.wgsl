// BF16 weights: a bf16 is the upper half of an f32.
@group(0) @binding(AT_WEIGHTS) var<storage, read> weights: array<vec4<u32>>;

struct Raw { words: vec4<u32> }

fn raw8(start: u32, piece: u32, lane: u32) -> Raw { return Raw(weights[(start + piece) * LANES + lane]); }

fn widened(scale: Scale, raw: Raw) -> Eight {
    let even = bitcast<vec4<f32>>(raw.words << vec4(16u));
    let odd = bitcast<vec4<f32>>(raw.words & vec4(0xffff0000u));
    return Eight(vec4(even.x, odd.x, even.y, odd.y), vec4(even.z, odd.z, even.w, odd.w));
}

// A word of the 16 bytes that hold word `at`, for shared/ahead.wgsl.
fn word_at(at: u32) -> u32 { return weights[at / 4u].x; }
