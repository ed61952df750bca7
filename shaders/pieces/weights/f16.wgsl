// F16 weights.
@group(0) @binding(AT_WEIGHTS) var<storage, read> weights: array<vec4<u32>>;

struct Raw { words: vec4<u32> }

fn raw8(start: u32, piece: u32, lane: u32) -> Raw { return Raw(weights[(start + piece) * LANES + lane]); }

fn widened(scale: Scale, raw: Raw) -> Eight {
    let w = raw.words;
    return Eight(vec4(unpack2x16float(w.x), unpack2x16float(w.y)), vec4(unpack2x16float(w.z), unpack2x16float(w.w)));
}

// A word of the 16 bytes that hold word `at`, for shared/ahead.wgsl.
fn word_at(at: u32) -> u32 { return weights[at / 4u].x; }
