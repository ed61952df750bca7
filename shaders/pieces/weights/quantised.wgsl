// Code shared by formats of quantised weights. A row is made of chunks of whole words, packed by
// engine/formats/; word i of LANES neighbouring rows is contiguous. SHARE pieces share a scale.
@group(0) @binding(AT_WEIGHTS) var<storage, read> weights: array<u32>;

// Word `word` of the rows that start at `start`.
fn word_of(start: u32, word: u32, lane: u32) -> u32 {
    return weights[(start + word) * LANES + lane];
}

// A piece that is not loaded yet: the format determines the number of its words and their decoding.
struct Raw { start: u32, piece: u32, lane: u32 }

fn raw8(start: u32, piece: u32, lane: u32) -> Raw { return Raw(start, piece, lane); }

fn widened(scale: Scale, raw: Raw) -> Eight { return weight8(scale, raw.start, raw.piece, raw.lane); }

// A word by its place in memory, for shared/ahead.wgsl.
fn word_at(at: u32) -> u32 { return weights[at]; }

// The eight 4-bit numbers of a word, lowest first. By way of signed integers: a CPU converts no others in one step.
fn nibbles(word: u32) -> Eight {
    let w = vec4(word);
    return Eight(
        vec4<f32>(vec4<i32>((w >> vec4(0u, 4u, 8u, 12u)) & vec4(15u))),
        vec4<f32>(vec4<i32>((w >> vec4(16u, 20u, 24u, 28u)) & vec4(15u))),
    );
}

// Eight 5-bit numbers: a word of their low four bits, and their fifth bits, of which those of numbers 2 * b and 2 * b +
// 1 are bits 0 and 1 of byte b.
fn fives(word: u32, fifth: u32) -> Eight {
    let w = vec4(word);
    let low = vec4(fifth << 4u, fifth << 3u, fifth >> 4u, fifth >> 5u) & vec4(16u);
    let high = vec4(fifth >> 12u, fifth >> 13u, fifth >> 20u, fifth >> 21u) & vec4(16u);
    return Eight(
        vec4<f32>(vec4<i32>(((w >> vec4(0u, 4u, 8u, 12u)) & vec4(15u)) | low)),
        vec4<f32>(vec4<i32>(((w >> vec4(16u, 20u, 24u, 28u)) & vec4(15u)) | high)),
    );
}

// The lower or the upper half-precision number of a word.
fn half_of(word: u32, upper: bool) -> f32 {
    let both = unpack2x16float(word);
    return select(both.x, both.y, upper);
}
