// Q5_0: w = d * (q - 16) for 32 weights at a time. A chunk is two such blocks: 8 words of the low four bits of q, 2 of the
// fifth bits, then both d.
const SHARE: u32 = 4u;

struct Scale { d: f32 }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * ((pieces + 7u) / 8u * 11u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    return Scale(half_of(word_of(start, run / 2u * 11u + 10u, lane), run % 2u == 1u));
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let chunk = piece / 8u * 11u;
    let fifth = word_of(start, chunk + 8u + piece % 8u / 4u, lane) >> (8u * (piece % 4u));
    let q = fives(word_of(start, chunk + piece % 8u, lane), fifth);
    return Eight((q.low - 16.0) * scale.d, (q.high - 16.0) * scale.d);
}
