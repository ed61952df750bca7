// Q2_K: w = d * s * q - dmin * m, with q of 2 bits, s and m of 4 bits for 16 weights at a time, d and dmin for 256. A
// chunk is 256 weights: 16 words of q, two pieces each: numbers 2 * b and 2 * b + 1 of a piece have four bits of byte
// b; 16 bytes of s (low) and m (high); d and dmin. A word holds s and m of 8 pieces, which share it.
const SHARE: u32 = 8u;

struct Scale { d: vec2<f32>, both: u32 }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * (pieces / 32u * 21u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    let at = run / 4u * 21u + 16u;
    return Scale(unpack2x16float(word_of(start, at + 4u, lane)), word_of(start, at + run % 4u, lane));
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let both = scale.both >> (8u * (piece % 8u / 2u));
    let s = scale.d.x * f32(i32(both & 15u));
    let m = scale.d.y * f32(i32((both >> 4u) & 15u));
    let w = vec4(word_of(start, piece / 32u * 21u + piece % 32u / 2u, lane) >> (4u * (piece % 2u)));
    let first = vec4<f32>(vec4<i32>((w >> vec4(0u, 2u, 8u, 10u)) & vec4(3u)));
    let second = vec4<f32>(vec4<i32>((w >> vec4(16u, 18u, 24u, 26u)) & vec4(3u)));
    return Eight(first * s - m, second * s - m);
}
