// The scales that Q4_K and Q5_K have in common: w = d * s * q - dmin * m, with s and m of 6 bits for 32 weights at a time, d
// and dmin for 256. Four words: d and dmin; the low four bits of all s, those of all m; the high two bits of all s and all m.
const SHARE: u32 = 4u;

struct Scale { scale: f32, minimum: f32 }

// Those of group `i` of a chunk, whose four words begin at `at`.
fn six_bit_scale(start: u32, at: u32, i: u32, lane: u32) -> Scale {
    let both = unpack2x16float(word_of(start, at, lane));
    let high = word_of(start, at + 3u, lane) >> (2u * i);
    let s = ((word_of(start, at + 1u, lane) >> (4u * i)) & 15u) | ((high & 3u) << 4u);
    let m = ((word_of(start, at + 2u, lane) >> (4u * i)) & 15u) | (((high >> 16u) & 3u) << 4u);
    return Scale(both.x * f32(i32(s)), both.y * f32(i32(m)));
}
