// Q5_0: w = d * (q - 16) for 32 weights at a time. A chunk is two such blocks: 8 words of the low four bits of q, 2 of the
// fifth bits, then both d.
const SHARE: u32 = 4u;

struct Scale { d: f32, fifths: u32 }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * ((pieces + 7u) / 8u * 11u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    let chunk = run / 2u * 11u;
    let d = half_of(word_of(start, chunk + 10u, lane), run % 2u == 1u);
    return Scale(d, word_of(start, chunk + 8u + run % 2u, lane));
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let q = fives(word_of(start, piece / 8u * 11u + piece % 8u, lane), scale.fifths >> (2u * (piece % 4u)));
    return Eight((q.low - 16.0) * scale.d, (q.high - 16.0) * scale.d);
}
