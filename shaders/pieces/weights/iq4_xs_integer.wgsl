// IQ4_XS as integers: 64 weights, 8 words of q, under scales of two groups.
const RUN: u32 = 2u;

struct Run { first: vec4<u32>, second: vec4<u32>, scales: vec2<u32> }

fn read_run(start: u32, run: u32, lane: u32) -> Run {
    let chunk = start + run / 4u * 34u;
    let at = chunk + run % 4u * 8u;
    return Run(
        four_words(at, lane),
        four_words(at + 4u, lane),
        vec2(word_of(chunk, 32u, lane), word_of(chunk, 33u, lane)),
    );
}

struct Scales { groups: vec2<f32> }

fn scales_of(now: Run, run: u32) -> Scales {
    return Scales(group_scales(now.scales.x, now.scales.y, run % 4u * 2u));
}

fn operands(now: Run, i: u32) -> Operands { return value_operands(select(now.second, now.first, i == 0u)); }

fn add_block(w: Operands, v: Rounded, scales: Scales, i: u32, sum: f32) -> f32 {
    return add_scaled(dot32(w, v, 0), v, select(scales.groups.y, scales.groups.x, i == 0u), sum);
}
