// Q4_K as integers: 64 weights, 8 words of q, under scales and minima of two groups (six_bits.wgsl).
const RUN: u32 = 2u;

struct Run { first: vec4<u32>, second: vec4<u32>, scales: vec4<u32> }

fn read_run(start: u32, run: u32, lane: u32) -> Run {
    let chunk = start + run / 4u * 36u;
    let at = chunk + run % 4u * 8u;
    return Run(four_words(at, lane), four_words(at + 4u, lane), four_words(chunk + 32u, lane));
}

struct Scales { groups: SixBits }

fn scales_of(now: Run, run: u32) -> Scales { return Scales(six_bits_of(now.scales, run % 4u * 2u)); }

fn operands(now: Run, i: u32) -> Operands { return nibble_bytes(select(now.second, now.first, i == 0u)); }

fn add_block(w: Operands, v: Rounded, scales: Scales, i: u32, sum: f32) -> f32 {
    return add_six_bits(dot32(w, v, 0), v, scales.groups, i, sum);
}
