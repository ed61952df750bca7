// F32 weights: eight values take two loads.
@group(0) @binding(AT_WEIGHTS) var<storage, read> weights: array<vec4<f32>>;

struct Raw { eight: Eight }

fn raw8(start: u32, piece: u32, lane: u32) -> Raw {
    let at = 2u * ((start + piece) * LANES + lane);
    return Raw(Eight(weights[at], weights[at + 1u]));
}

fn widened(scale: Scale, raw: Raw) -> Eight { return raw.eight; }

// A word of the 16 bytes that hold word `at`, for shared/ahead.wgsl.
fn word_at(at: u32) -> u32 { return bitcast<u32>(weights[at / 4u].x); }
