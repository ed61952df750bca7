// IQ4_NL: w = d * v(q) for 32 weights at a time (nibble_pairs.wgsl), v of sixteen_values.wgsl.
fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let v = sixteen_values(word_of(start, piece / 8u * 9u + piece % 8u, lane));
    return Eight(v.low * scale.d, v.high * scale.d);
}
