// Q5_K. A chunk is 256 weights: 32 words of the low four bits of q, 8 of the fifth bits, then the scales (six_bits.wgsl).
fn row_start(block: u32, pieces: u32) -> u32 {
    return block * (pieces / 32u * 44u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    return six_bit_scale(start, run / 8u * 44u + 40u, run % 8u, lane);
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let chunk = piece / 32u * 44u;
    let fifth = word_of(start, chunk + 32u + piece % 32u / 4u, lane) >> (8u * (piece % 4u));
    let q = fives(word_of(start, chunk + piece % 32u, lane), fifth);
    return Eight(q.low * scale.scale - scale.minimum, q.high * scale.scale - scale.minimum);
}
