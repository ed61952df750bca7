// IQ4_NL: w = d * v(q) for 32 weights at a time, v of sixteen_values.wgsl. A chunk is two such blocks: 8 words of q,
// then both d.
const SHARE: u32 = 4u;

struct Scale { d: f32 }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * ((pieces + 7u) / 8u * 9u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    return Scale(half_of(word_of(start, run / 2u * 9u + 8u, lane), run % 2u == 1u));
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let v = sixteen_values(word_of(start, piece / 8u * 9u + piece % 8u, lane));
    return Eight(v.low * scale.d, v.high * scale.d);
}
