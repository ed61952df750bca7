// Q4_0: w = d * (q - 8) for 32 weights at a time (nibble_pairs.wgsl).
fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let q = nibbles(word_of(start, piece / 8u * 9u + piece % 8u, lane));
    return Eight((q.low - 8.0) * scale.d, (q.high - 8.0) * scale.d);
}
