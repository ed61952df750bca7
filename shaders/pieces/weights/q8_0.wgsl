// Q8_0: w = d * q for 32 weights at a time, q a signed byte. A chunk is two such blocks: 16 words of q, two for each
// piece: q of even and of odd index; then both d.
const SHARE: u32 = 4u;

struct Scale { d: f32 }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * ((pieces + 7u) / 8u * 17u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    return Scale(half_of(word_of(start, run / 2u * 17u + 16u, lane), run % 2u == 1u));
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let at = piece / 8u * 17u + piece % 8u * 2u;
    let even = vec4<f32>(unpack4xI8(word_of(start, at, lane)));
    let odd = vec4<f32>(unpack4xI8(word_of(start, at + 1u, lane)));
    return Eight(vec4(even.x, odd.x, even.y, odd.y) * scale.d, vec4(even.z, odd.z, even.w, odd.w) * scale.d);
}
