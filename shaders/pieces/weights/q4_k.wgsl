// Q4_K. A chunk is 256 weights: 32 words of q, then the scales (six_bits.wgsl).
struct Scale { groups: SixBits }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * (pieces / 32u * 36u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    return Scale(six_bits(start, run / 4u * 36u + 32u, run % 4u * 2u, lane));
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    return six_bit_eight(nibbles(word_of(start, piece / 32u * 36u + piece % 32u, lane)), scale.groups, piece);
}
