// The gradients of rotated heads, turned back by the angles of their rows: a rotation's transpose is its inverse.
@group(0) @binding(2) var<storage, read> angles: array<vec4<f32>>;            // [rows, 2, HEAD_DIM / 2]: cos, sin
@group(0) @binding(4) var<storage, read> query_gradient: array<vec4<f32>>;    // [rows, HEADS * HEAD_DIM]
@group(0) @binding(5) var<storage, read> key_gradient: array<vec4<f32>>;      // [rows, KV_HEADS * HEAD_DIM]

// Four dimensions of a head, and the four that they turn with.
struct Turned { low: vec4<f32>, high: vec4<f32> }

// Dimensions 4 * i .. 4 * i + 4 of head `head` (q's, then k's), and those half a head on.
fn turned_back(row: u32, head: u32, i: u32) -> Turned {
    var low: vec4<f32>;
    var high: vec4<f32>;
    if head < HEADS {
        let at = (row * HEADS + head) * 2u * HALF + i;
        low = query_gradient[at];
        high = query_gradient[at + HALF];
    } else {
        let at = (row * KV_HEADS + head - HEADS) * 2u * HALF + i;
        low = key_gradient[at];
        high = key_gradient[at + HALF];
    }
    let cosine = angles[row * 2u * HALF + i];
    let sine = angles[row * 2u * HALF + HALF + i];
    return Turned(fma(low, cosine, high * sine), fma(high, cosine, -(low * sine)));
}
