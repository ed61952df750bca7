// IQ4_NL as integers: 64 weights, 8 words of q, then both d.
const RUN: u32 = 2u;

struct Run { first: vec4<u32>, second: vec4<u32>, d: u32 }

fn read_run(start: u32, run: u32, lane: u32) -> Run {
    let at = start + run * 9u;
    return Run(four_words(at, lane), four_words(at + 4u, lane), word_of(at, 8u, lane));
}

struct Scales { d: vec2<f32> }

fn scales_of(now: Run, run: u32) -> Scales { return Scales(unpack2x16float(now.d)); }

fn operands(now: Run, i: u32) -> Operands { return value_operands(select(now.second, now.first, i == 0u)); }

fn add_block(w: Operands, v: Rounded, scales: Scales, i: u32, sum: f32) -> f32 {
    return add_scaled(dot32(w, v, 0), v, select(scales.d.y, scales.d.x, i == 0u), sum);
}
