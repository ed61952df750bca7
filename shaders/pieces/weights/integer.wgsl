// Code shared by formats whose weights are integers to multiply by. A run is RUN blocks of 32 weights. Each format
// provides: read_run, the words of a run; scales_of, their scales; operands, block i of the run as bytes; add_block, the
// products with a block of x, scaled and added to a sum.

// The 32 weights of a block, 16 and 16: words of every other one of eight, as x has them (quantise_rows.wgsl).
struct Operands { a: vec4<u32>, b: vec4<u32> }

// Fields of a block of x beside its bytes: the size of a step, sums of values in steps, and the sum of all values.
fn size(v: Rounded) -> f32 { return bitcast<f32>(v.rest.x); }
fn sum_a(v: Rounded) -> i32 { return bitcast<i32>(v.rest.y); }
fn sum_b(v: Rounded) -> i32 { return bitcast<i32>(v.rest.z); }
fn total(v: Rounded) -> f32 { return bitcast<f32>(v.rest.w); }

// sum + the products of 16 bytes each.
fn dot16(w: vec4<u32>, v: vec4<u32>, sum: i32) -> i32 {
    return dot4I8Packed(w.w, v.w) + (dot4I8Packed(w.z, v.z) + (dot4I8Packed(w.y, v.y) + (dot4I8Packed(w.x, v.x) + sum)));
}

// sum + products * step * d.
fn add_scaled(products: i32, v: Rounded, d: f32, sum: f32) -> f32 { return fma(f32(products) * size(v), d, sum); }

// Four neighbouring words of a row.
fn four_words(word: u32, lane: u32) -> vec4<u32> {
    return vec4(word_of(word, 0u, lane), word_of(word, 1u, lane), word_of(word, 2u, lane), word_of(word, 3u, lane));
}

// The bytes of 32 4-bit numbers.
fn nibble_bytes(q: vec4<u32>) -> Operands {
    let even = q & vec4(0x0f0f0f0fu);
    let odd = (q >> vec4(4u)) & vec4(0x0f0f0f0fu);
    return Operands(vec4(even.x, odd.x, even.y, odd.y), vec4(even.z, odd.z, even.w, odd.w));
}

// The bytes of 32 5-bit numbers: bit k of byte j of `fifths` is that of byte j of word k.
fn five_bytes(q: vec4<u32>, fifths: u32) -> Operands {
    let low = nibble_bytes(q);
    let bit = vec4(0x10101010u);
    return Operands(
        low.a | (vec4(fifths << 4u, fifths << 3u, fifths << 2u, fifths << 1u) & bit),
        low.b | (vec4(fifths, fifths >> 1u, fifths >> 2u, fifths >> 3u) & bit),
    );
}
