// Q4_1: w = d * q + m for 32 weights at a time. A chunk is such a block: 4 words of q, then d and m.
const SHARE: u32 = 4u;

struct Scale { d: f32, m: f32 }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * (pieces / 4u * 5u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    let both = unpack2x16float(word_of(start, run * 5u + 4u, lane));
    return Scale(both.x, both.y);
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let q = nibbles(word_of(start, piece / 4u * 5u + piece % 4u, lane));
    return Eight(fma(q.low, vec4(scale.d), vec4(scale.m)), fma(q.high, vec4(scale.d), vec4(scale.m)));
}
