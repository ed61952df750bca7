// Puts a hidden state of each row of a target's pass into its place among the features that a draft's projection reads:
// features[r, part] = scale * state(x[r]). What a state is, the pieces in state/ say.
//
// Constants: LANES per row, a power of two.
// Dispatch: one workgroup per row.
struct RememberParams {
    pieces: u32,   // width / 4
    parts: u32,    // states of a row, one behind the other in its features
    part: u32,     // index of this state among them
    scale: f32,
    epsilon: f32,  // of a normalised state
}
@group(0) @binding(0) var<uniform> params: RememberParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;               // [rows, width]
@group(0) @binding(2) var<storage, read_write> features: array<vec4<f32>>;  // [rows, parts, width]

@compute @workgroup_size(LANES)
fn remember(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let source = group.x * params.pieces;
    let scale = params.scale * state_scale(source, lane);
    let out = (group.x * params.parts + params.part) * params.pieces;
    for (var i = lane; i < params.pieces; i += LANES) {
        features[out + i] = x[source + i] * scale * state_gain(i);
    }
}
