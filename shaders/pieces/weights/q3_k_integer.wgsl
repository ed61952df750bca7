// Q3_K as integers: 64 weights, 4 words of the low two bits of q and 2 of the third bits, under scales of four groups.
// The bytes are q of 0 to 7; 4 times the sum of x is taken off.
const RUN: u32 = 2u;

struct Run { q: vec4<u32>, thirds: vec2<u32>, scales: vec3<u32> }

fn read_run(start: u32, run: u32, lane: u32) -> Run {
    let chunk = start + run / 4u * 28u;
    let i = run % 4u;
    return Run(
        four_words(chunk + i * 4u, lane),
        vec2(word_of(chunk, 16u + i * 2u, lane), word_of(chunk, 17u + i * 2u, lane)),
        vec3(word_of(chunk, 24u + i / 2u, lane), word_of(chunk, 26u, lane), word_of(chunk, 27u, lane)),
    );
}

// Those of 16 weights each.
struct Scales { s: vec4<f32> }

fn scales_of(now: Run, run: u32) -> Scales {
    return Scales(group_scales(now.scales.x, now.scales.y, now.scales.z, run % 4u));
}

fn operands(now: Run, i: u32) -> Operands {
    let q = select(now.q.zw, now.q.xy, i == 0u);
    let third = select(now.thirds.y, now.thirds.x, i == 0u);
    let bits = vec4(0x03030303u);
    let bit = vec4(0x04040404u);
    return Operands(
        ((vec4(q.x) >> vec4(0u, 2u, 4u, 6u)) & bits) | (vec4(third << 2u, third << 1u, third, third >> 1u) & bit),
        ((vec4(q.y) >> vec4(0u, 2u, 4u, 6u)) & bits) | ((vec4(third) >> vec4(2u, 3u, 4u, 5u)) & bit),
    );
}

fn add_block(w: Operands, v: Rounded, scales: Scales, i: u32, sum: f32) -> f32 {
    let s = select(scales.s.zw, scales.s.xy, i == 0u);
    let a = f32(dot_a(w, v, -4 * sum_a(v)));
    let b = f32(dot_b(w, v, -4 * sum_b(v)));
    return fma(fma(b, s.y, a * s.x), size(v), sum);
}
