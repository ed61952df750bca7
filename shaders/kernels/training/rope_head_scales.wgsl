// Factors by which each head of q and k was normalised, for rope_gain_gradient, which goes over the heads once for every
// four dimensions.
//
// Constants: HEADS, KV_HEADS, HEAD_DIM, KEY_TILE.
// Dispatch: x over rows * (HEADS + KV_HEADS) in workgroups of 64.
@group(0) @binding(3) var<storage, read> qkv: array<vec4<f32>>;           // [rows, ALL_HEADS * HEAD_DIM]
@group(0) @binding(9) var<storage, read_write> scales: array<f32>;        // [rows, HEADS + KV_HEADS]

@compute @workgroup_size(64)
fn rope_head_scales(@builtin(global_invocation_id) at: vec3<u32>) {
    let row = at.x / TURNED_HEADS;
    if row >= step.rows { return; }
    scales[at.x] = head_scale((row * ALL_HEADS + at.x % TURNED_HEADS) * 2u * HALF);
}
