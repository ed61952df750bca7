// Q4_1 as integers: 32 weights, 4 words of q, then d and m.
const RUN: u32 = 1u;

struct Run { q: vec4<u32>, both: u32 }

fn read_run(start: u32, run: u32, lane: u32) -> Run {
    let at = start + run * 5u;
    return Run(four_words(at, lane), word_of(at, 4u, lane));
}

// d and m.
struct Scales { both: vec2<f32> }

fn scales_of(now: Run, run: u32) -> Scales { return Scales(unpack2x16float(now.both)); }

fn operands(now: Run, i: u32) -> Operands { return nibble_bytes(now.q); }

fn add_block(w: Operands, v: Rounded, scales: Scales, i: u32, sum: f32) -> f32 {
    return fma(scales.both.y, total(v), add_scaled(dot32(w, v, 0), v, scales.both.x, sum));
}
