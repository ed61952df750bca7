// A run of Q4_0 or IQ4_NL: 64 weights, 8 words of q, then both d.
const RUN: u32 = 2u;

struct Run { first: vec4<u32>, second: vec4<u32>, d: u32 }

fn read_run(start: u32, run: u32, lane: u32) -> Run {
    let at = start + run * 9u;
    return Run(four_words(at, lane), four_words(at + 4u, lane), word_of(at, 8u, lane));
}

struct Scales { d: vec2<f32> }

fn scales_of(now: Run, run: u32) -> Scales { return Scales(unpack2x16float(now.d)); }
