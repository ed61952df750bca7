// Q3_K: w = d * (s - 32) * (q - 4), with q of 3 bits, s of 6 bits for 16 weights at a time, d for 256. A chunk is 256
// weights: 16 words of the low two bits of q, two pieces each: numbers 2 * b and 2 * b + 1 of a piece have four bits of
// byte b; 8 words of the third bits, four pieces each; 2 of the low four bits of s, one of the high two; d. Scales are
// read for 8 pieces, four groups, at a time.
const SHARE: u32 = 8u;

struct Scale { s: vec4<f32> }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * (pieces / 32u * 28u);
}

// d * (s - 32) of the four groups of run `run` of a chunk, from a word of low bits, the one of high bits, and d.
fn group_scales(low: u32, high: u32, d: u32, run: u32) -> vec4<f32> {
    let lower = (vec4(low >> (16u * (run % 2u))) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u);
    let upper = (vec4(high >> (8u * run)) >> vec4(0u, 2u, 4u, 6u)) & vec4(3u);
    return unpack2x16float(d).x * vec4<f32>(vec4<i32>(lower | (upper << vec4(4u))) - 32);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    let at = run / 4u * 28u + 24u;
    let i = run % 4u;
    let low = word_of(start, at + i / 2u, lane);
    return Scale(group_scales(low, word_of(start, at + 2u, lane), word_of(start, at + 3u, lane), i));
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let pair = select(scale.s.xy, scale.s.zw, piece % 8u >= 4u);
    let s = select(pair.x, pair.y, piece % 4u >= 2u);
    let chunk = piece / 32u * 28u;
    let w = vec4(word_of(start, chunk + piece % 32u / 2u, lane) >> (4u * (piece % 2u)));
    let third = vec4(word_of(start, chunk + 16u + piece % 32u / 4u, lane) >> (2u * (piece % 4u)));
    let first = ((w >> vec4(0u, 2u, 8u, 10u)) & vec4(3u)) | (((third >> vec4(0u, 1u, 8u, 9u)) & vec4(1u)) << vec4(2u));
    let second = ((w >> vec4(16u, 18u, 24u, 26u)) & vec4(3u)) | (((third >> vec4(16u, 17u, 24u, 25u)) & vec4(1u)) << vec4(2u));
    return Eight(vec4<f32>(vec4<i32>(first) - 4) * s, vec4<f32>(vec4<i32>(second) - 4) * s);
}
