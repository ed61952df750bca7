// The layout that Q4_0 and IQ4_NL have in common. A chunk is two blocks of 32 4-bit numbers q: 8 words of q, then both d.
const SHARE: u32 = 4u;

struct Scale { d: f32 }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * ((pieces + 7u) / 8u * 9u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    return Scale(half_of(word_of(start, run / 2u * 9u + 8u, lane), run % 2u == 1u));
}
