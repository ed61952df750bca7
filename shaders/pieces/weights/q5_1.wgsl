// Q5_1: w = d * q + m for 32 weights at a time. A chunk is such a block: 4 words of the low four bits of q, one of the fifth
// bits, then d and m.
const SHARE: u32 = 4u;

struct Scale { d: f32, m: f32, fifths: u32 }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * (pieces / 4u * 6u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    let both = unpack2x16float(word_of(start, run * 6u + 5u, lane));
    return Scale(both.x, both.y, word_of(start, run * 6u + 4u, lane));
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let q = fives(word_of(start, piece / 4u * 6u + piece % 4u, lane), scale.fifths >> (2u * (piece % 4u)));
    return Eight(fma(q.low, vec4(scale.d), vec4(scale.m)), fma(q.high, vec4(scale.d), vec4(scale.m)));
}
