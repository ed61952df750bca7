// Q6_K: w = d * s * (q - 32), with s a signed byte for 16 weights at a time, d for 256. A chunk is 256 weights: 32 words
// of the low four bits of all q; 16 of the high two bits, of which numbers 2 * b and 2 * b + 1 of a
// piece have four bits of byte b; 4 of s; d.
// A word holds s of 8 pieces, which share it.
const SHARE: u32 = 8u;

struct Scale { d: f32, s: u32 }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * (pieces / 32u * 53u);
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    let at = run / 4u * 53u + 48u;
    return Scale(unpack2x16float(word_of(start, at + 4u, lane)).x, word_of(start, at + run % 4u, lane));
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    let s = i32(scale.s << (24u - 8u * (piece % 8u / 2u))) >> 24u;
    let factor = scale.d * f32(s);
    let chunk = piece / 32u * 53u;
    let low = vec4(word_of(start, chunk + piece % 32u, lane));
    let high = vec4(word_of(start, chunk + 32u + piece % 32u / 2u, lane) >> (4u * (piece % 2u)));
    let upper = vec4(high.x << 4u, high.y << 2u, high.z >> 4u, high.w >> 6u);
    let first = ((low >> vec4(0u, 4u, 8u, 12u)) & vec4(15u)) | (upper & vec4(48u));
    let second = ((low >> vec4(16u, 20u, 24u, 28u)) & vec4(15u)) | ((high >> vec4(12u, 14u, 20u, 22u)) & vec4(48u));
    return Eight(
        vec4<f32>(vec4<i32>(first) - 32) * factor,
        vec4<f32>(vec4<i32>(second) - 32) * factor,
    );
}
