// The gradient of `rope` by qkv, from those by rotated q and k, and by v.
//
// Constants: HEADS, KV_HEADS, HEAD_DIM, KEY_TILE.
// Dispatch: x over rows * (HEADS + 2 * KV_HEADS) in workgroups of 64.
@group(0) @binding(6) var<storage, read> value_gradient: array<vec4<f32>>;        // [rows, KV_HEADS * HEAD_DIM]
@group(0) @binding(9) var<storage, read_write> qkv_gradient: array<vec4<f32>>;    // [rows, ALL_HEADS * HEAD_DIM]

@compute @workgroup_size(64)
fn rope_gradient(@builtin(global_invocation_id) at: vec3<u32>) {
    let row = at.x / ALL_HEADS;
    let head = at.x % ALL_HEADS;
    if row >= step.rows { return; }
    let first = at.x * 2u * HALF;
    if head >= TURNED_HEADS {
        let start = (row * KV_HEADS + head - TURNED_HEADS) * 2u * HALF;
        for (var i = 0u; i < 2u * HALF; i++) { qkv_gradient[first + i] = value_gradient[start + i]; }
        return;
    }
    let scale = head_scale(first);
    let pulled = pull(row, head, first, scale);
    for (var i = 0u; i < HALF; i++) {
        let dy = turned_back(row, head, i);
        let low = dy.low * head_gain(head >= HEADS, i);
        let high = dy.high * head_gain(head >= HEADS, i + HALF);
        qkv_gradient[first + i] = through_norm(low, first + i, scale, pulled);
        qkv_gradient[first + i + HALF] = through_norm(high, first + i + HALF, scale, pulled);
    }
}
