// Q4_K: w = d * s * q - dmin * m, with s and m of 6 bits for 32 weights at a time, d and dmin for 256. A chunk is 256
// weights: 32 words of q; d and dmin; the low four bits of all s, those of all m; the high two bits of all s and all m.
const SHARE: u32 = 4u;

struct Scale { scale: f32, minimum: f32 }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * (pieces / 32u * 36u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    let at = run / 8u * 36u + 32u;
    let i = run % 8u;
    let both = unpack2x16float(word_of(start, at, lane));
    let high = word_of(start, at + 3u, lane) >> (2u * i);
    let s = ((word_of(start, at + 1u, lane) >> (4u * i)) & 15u) | ((high & 3u) << 4u);
    let m = ((word_of(start, at + 2u, lane) >> (4u * i)) & 15u) | (((high >> 16u) & 3u) << 4u);
    return Scale(both.x * f32(i32(s)), both.y * f32(i32(m)));
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let q = nibbles(word_of(start, piece / 32u * 36u + piece % 32u, lane));
    return Eight(q.low * scale.scale - scale.minimum, q.high * scale.scale - scale.minimum);
}
