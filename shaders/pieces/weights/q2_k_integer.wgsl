// Q2_K as integers: 64 weights, 4 words of q, a word of s and m of four groups, d and dmin.
const RUN: u32 = 2u;

struct Run { q: vec4<u32>, both: u32, d: u32 }

fn read_run(start: u32, run: u32, lane: u32) -> Run {
    let chunk = start + run / 4u * 21u;
    return Run(
        four_words(chunk + run % 4u * 4u, lane),
        word_of(chunk, 16u + run % 4u, lane),
        word_of(chunk, 20u, lane),
    );
}

// Those of 16 weights each.
struct Scales { s: vec4<f32>, m: vec4<f32> }

fn scales_of(now: Run, run: u32) -> Scales {
    let d = unpack2x16float(now.d);
    let s = vec4<i32>((vec4(now.both) >> vec4(0u, 8u, 16u, 24u)) & vec4(15u));
    let m = vec4<i32>((vec4(now.both) >> vec4(4u, 12u, 20u, 28u)) & vec4(15u));
    return Scales(d.x * vec4<f32>(s), d.y * vec4<f32>(m));
}

fn operands(now: Run, i: u32) -> Operands {
    let q = select(now.q.zw, now.q.xy, i == 0u);
    let bits = vec4(0x03030303u);
    return Operands((vec4(q.x) >> vec4(0u, 2u, 4u, 6u)) & bits, (vec4(q.y) >> vec4(0u, 2u, 4u, 6u)) & bits);
}

fn add_block(w: Operands, v: Rounded, scales: Scales, i: u32, sum: f32) -> f32 {
    let s = select(scales.s.zw, scales.s.xy, i == 0u);
    let m = select(scales.m.zw, scales.m.xy, i == 0u);
    let products = fma(f32(dot_b(w, v, 0)), s.y, f32(dot_a(w, v, 0)) * s.x);
    let minima = fma(f32(sum_b(v)), m.y, f32(sum_a(v)) * m.x);
    return fma(products - minima, size(v), sum);
}
