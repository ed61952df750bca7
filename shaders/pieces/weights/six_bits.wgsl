// The scales that Q4_K and Q5_K have in common: w = d * s * q - dmin * m, with s and m of 6 bits for 32 weights at a
// time, d and dmin for 256. Four words: d and dmin; the low four bits of all s, those of all m; the high two bits of
// all s and all m. They are read for two groups at a time.
const SHARE: u32 = 8u;

// Scales and minima of two groups of 32 weights.
struct SixBits { scale: vec2<f32>, minimum: vec2<f32> }

// Those of groups `i` and `i + 1` of a chunk, whose four words begin at `at`.
fn six_bits(start: u32, at: u32, i: u32, lane: u32) -> SixBits {
    let d = word_of(start, at, lane);
    return six_bits_of(vec4(d, word_of(start, at + 1u, lane), word_of(start, at + 2u, lane), word_of(start, at + 3u, lane)), i);
}

// The same from the four words.
fn six_bits_of(words: vec4<u32>, i: u32) -> SixBits {
    let both = unpack2x16float(words.x);
    let low = words.yz >> vec2(4u * i);
    let high = words.w >> (2u * i);
    let s = ((vec2(low.x) >> vec2(0u, 4u)) & vec2(15u)) | (((vec2(high) >> vec2(0u, 2u)) & vec2(3u)) << vec2(4u));
    let m = ((vec2(low.y) >> vec2(0u, 4u)) & vec2(15u)) | (((vec2(high) >> vec2(16u, 18u)) & vec2(3u)) << vec2(4u));
    return SixBits(both.x * vec2<f32>(vec2<i32>(s)), both.y * vec2<f32>(vec2<i32>(m)));
}

// Eight numbers of piece `piece` of a row, scaled.
fn six_bit_eight(q: Eight, groups: SixBits, piece: u32) -> Eight {
    let is_second = piece % 8u >= 4u;
    let scale = select(groups.scale.x, groups.scale.y, is_second);
    let minimum = select(groups.minimum.x, groups.minimum.y, is_second);
    return Eight(q.low * scale - minimum, q.high * scale - minimum);
}
