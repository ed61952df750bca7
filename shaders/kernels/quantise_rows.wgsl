// Rows of f32 to integers, as shared/quantise.wgsl says.
//
// Constants: PLANES bytes of a value, 2 or 1; X_ROWS rows that there is room for.
// Dispatch: x over 64 blocks of a row, y over rows.
struct QuantiseParams {
    blocks: u32,    // blocks of a row of x
    padded: u32,    // blocks of a row of integers; the surplus is zeros
}
@group(0) @binding(0) var<uniform> params: QuantiseParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;                 // [rows, blocks, 8]
@group(0) @binding(2) var<storage, read_write> integers: array<vec4<u32>>;    // [padded, X_ROWS, 2 * PLANES + 1]

@compute @workgroup_size(64)
fn quantise_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = group.x * 64u + lane;
    if block >= params.padded { return; }
    var values: array<vec4<f32>, 8>;
    if block < params.blocks {
        for (var i = 0u; i < 8u; i++) { values[i] = x[(group.y * params.blocks + block) * 8u + i]; }
    }
    store_block(values, block, group.y);
}
