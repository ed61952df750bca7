// Q6_K as integers: 64 weights, 8 words of their low four bits and 4 of the high two, a word of four scales for 16 weights
// each, d. The bytes are q of 0 to 63; 32 times the sum of x is taken off.
const RUN: u32 = 2u;

struct Run { first: vec4<u32>, second: vec4<u32>, high: vec4<u32>, s: u32, d: u32 }

fn read_run(start: u32, run: u32, lane: u32) -> Run {
    let chunk = start + run / 4u * 53u;
    let at = chunk + run % 4u * 8u;
    return Run(
        four_words(at, lane),
        four_words(at + 4u, lane),
        four_words(chunk + 32u + run % 4u * 4u, lane),
        word_of(chunk, 48u + run % 4u, lane),
        word_of(chunk, 52u, lane),
    );
}

// Those of 16 weights each.
struct Scales { s: vec4<f32> }

fn scales_of(now: Run, run: u32) -> Scales {
    return Scales(unpack2x16float(now.d).x * vec4<f32>(unpack4xI8(now.s)));
}

fn operands(now: Run, i: u32) -> Operands {
    let low = nibble_bytes(select(now.second, now.first, i == 0u));
    let high = select(now.high.zw, now.high.xy, i == 0u);
    let bits = vec4(0x30303030u);
    return Operands(
        low.a | (vec4(high.x << 4u, high.x << 2u, high.x, high.x >> 2u) & bits),
        low.b | (vec4(high.y << 4u, high.y << 2u, high.y, high.y >> 2u) & bits),
    );
}

fn add_block(w: Operands, v: Rounded, scales: Scales, i: u32, sum: f32) -> f32 {
    let s = select(scales.s.zw, scales.s.xy, i == 0u);
    let a = f32(dot_a(w, v, -32 * sum_a(v)));
    let b = f32(dot_b(w, v, -32 * sum_b(v)));
    return fma(fma(b, s.y, a * s.x), size(v), sum);
}
