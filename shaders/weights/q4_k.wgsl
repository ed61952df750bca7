// Q4_K. A chunk is 256 weights: 32 words of q, then the scales (six_bits.wgsl).
fn row_start(block: u32, pieces: u32) -> u32 {
    return block * (pieces / 32u * 36u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    return six_bit_scale(start, run / 8u * 36u + 32u, run % 8u, lane);
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let q = nibbles(word_of(start, piece / 32u * 36u + piece % 32u, lane));
    return Eight(q.low * scale.scale - scale.minimum, q.high * scale.scale - scale.minimum);
}
