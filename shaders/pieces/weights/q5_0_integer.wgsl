// Q5_0 as integers: 64 weights, 8 words of the low four bits of q, 2 of the fifth bits, then both d. The bytes are q of 0 to
// 31; 16 times the sum of x is taken off.
const RUN: u32 = 2u;

struct Run { first: vec4<u32>, second: vec4<u32>, fifths: vec2<u32>, d: u32 }

fn read_run(start: u32, run: u32, lane: u32) -> Run {
    let at = start + run * 11u;
    return Run(
        four_words(at, lane),
        four_words(at + 4u, lane),
        vec2(word_of(at, 8u, lane), word_of(at, 9u, lane)),
        word_of(at, 10u, lane),
    );
}

struct Scales { d: vec2<f32> }

fn scales_of(now: Run, run: u32) -> Scales { return Scales(unpack2x16float(now.d)); }

fn operands(now: Run, i: u32) -> Operands {
    return five_bytes(select(now.second, now.first, i == 0u), select(now.fifths.y, now.fifths.x, i == 0u));
}

fn add_block(w: Operands, v: Rounded, scales: Scales, i: u32, sum: f32) -> f32 {
    let more = -16 * (sum_a(v) + sum_b(v));
    return add_scaled(dot32(w, v, more), v, select(scales.d.y, scales.d.x, i == 0u), sum);
}
