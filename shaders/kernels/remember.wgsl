// Stores the output of a layer of the target for each row, by position and to a common size, for a draft that reads it:
// states[p] = x[r] / sqrt(mean(x[r]^2) + eps), in 16 bits. Rows of other sequences' slots are skipped.
//
// Constants: LANES per row, a power of two.
// Dispatch: one workgroup per row.
struct RememberParams {
    pieces: u32,     // width / 4
    parts: u32,      // layers that are read, one behind the other in a position's states
    part: u32,       // index of this layer among them
    positions: u32,  // capacity of states
    slot: u32,       // the sequence's
    epsilon: f32,
}
@group(0) @binding(0) var<uniform> params: RememberParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;             // [rows, width]
@group(0) @binding(3) var<storage, read_write> states: array<vec2<u32>>;  // [positions, parts, width]

@compute @workgroup_size(LANES)
fn remember(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let source = group.x * params.pieces;
    let scale = row_scale(source, params.pieces, params.epsilon, lane);
    let position = position_of(group.x);
    if slot_of(group.x) != params.slot || position >= params.positions { return; }
    let out = (position * params.parts + params.part) * params.pieces;
    for (var i = lane; i < params.pieces; i += LANES) {
        let v = x[source + i] * scale;
        states[out + i] = vec2(pack2x16float(v.xy), pack2x16float(v.zw));
    }
}
