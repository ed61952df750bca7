// x in 16 bits: 256 * high + low, two signed bytes, in steps of a block's own size. A block of 32 values is five
// vectors: the high bytes of the first 16 and of the last 16, their low bytes, and `rest`. Words hold every other value
// of eight.
const X_VECTORS: u32 = 5u;

// `rest` is the step's size; the sums of the first and of the last 16, in steps; and the sum of all.
struct Rounded { high_a: vec4<u32>, high_b: vec4<u32>, low_a: vec4<u32>, low_b: vec4<u32>, rest: vec4<u32> }

fn rounded(at: u32) -> Rounded { return Rounded(x[at], x[at + 1u], x[at + 2u], x[at + 3u], x[at + 4u]); }

// The integer sum of the first 16 products of a block, plus `more`.
fn dot_a(w: Operands, v: Rounded, more: i32) -> i32 {
    return dot16(w.a, v.low_a, (dot16(w.a, v.high_a, 0) << 8u) + more);
}

// The integer sum of the last 16 products of a block, plus `more`.
fn dot_b(w: Operands, v: Rounded, more: i32) -> i32 {
    return dot16(w.b, v.low_b, (dot16(w.b, v.high_b, 0) << 8u) + more);
}

// The integer sum of all 32 products of a block, plus `more`.
fn dot32(w: Operands, v: Rounded, more: i32) -> i32 {
    let high = dot16(w.b, v.high_b, dot16(w.a, v.high_a, 0));
    return dot16(w.b, v.low_b, dot16(w.a, v.low_a, (high << 8u) + more));
}
