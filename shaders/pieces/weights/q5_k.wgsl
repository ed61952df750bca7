// Q5_K. A chunk is 256 weights: 32 words of the low four bits of q, 8 of the fifth bits, then the scales (six_bits.wgsl).
struct Scale { groups: SixBits, fifths: vec2<u32> }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * (pieces / 32u * 44u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    let at = run / 4u * 44u + 32u;
    let i = run % 4u * 2u;
    let fifths = vec2(word_of(start, at + i, lane), word_of(start, at + i + 1u, lane));
    return Scale(six_bits(start, at + 8u, i, lane), fifths);
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let fifth = select(scale.fifths.x, scale.fifths.y, piece % 8u >= 4u) >> (2u * (piece % 4u));
    let q = fives(word_of(start, piece / 32u * 44u + piece % 32u, lane), fifth);
    return six_bit_eight(q, scale.groups, piece);
}
