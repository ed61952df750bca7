// IQ4_XS: w = d * (s - 32) * v(q), with v of sixteen_values.wgsl, s of 6 bits for 32 weights at a time, d for 256. A
// chunk is 256 weights: 32 words of q; d and the high two bits of all s; the low four bits of all s. Scales are read
// for two groups at a time.
const SHARE: u32 = 8u;

struct Scale { groups: vec2<f32> }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * (pieces / 32u * 34u);
}

// d * (s - 32) of groups `i` and `i + 1`, from the two words of a chunk.
fn group_scales(first: u32, second: u32, i: u32) -> vec2<f32> {
    let low = (vec2(second >> (4u * i)) >> vec2(0u, 4u)) & vec2(15u);
    let high = (vec2(first >> (16u + 2u * i)) >> vec2(0u, 2u)) & vec2(3u);
    return unpack2x16float(first).x * vec2<f32>(vec2<i32>(low | (high << vec2(4u))) - 32);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    let at = run / 4u * 34u + 32u;
    return Scale(group_scales(word_of(start, at, lane), word_of(start, at + 1u, lane), run % 4u * 2u));
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let v = sixteen_values(word_of(start, piece / 32u * 34u + piece % 32u, lane));
    let group = select(scale.groups.x, scale.groups.y, piece % 8u >= 4u);
    return Eight(v.low * group, v.high * group);
}
