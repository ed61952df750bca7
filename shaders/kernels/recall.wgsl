// Hidden states of the target, which a draft reads beside tokens: y[r] = states[p - 1], those of the token before row
// r's. They are zero if there are none, or if the target has not been there yet: for masks, and for proposals of the
// draft itself. Rows of other sequences' slots are skipped.
//
// Dispatch: x over pieces of 4 in workgroups of 64, y over rows.
struct RecallParams {
    pieces: u32,  // width / 4
    slot: u32,    // the sequence's
}
@group(0) @binding(0) var<uniform> params: RecallParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> sessions: array<Session>;        // by slot
@group(0) @binding(3) var<storage, read> states: array<vec2<u32>>;        // [positions, width]
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;       // [rows, width]

@compute @workgroup_size(64)
fn recall(@builtin(global_invocation_id) at: vec3<u32>) {
    if at.x >= params.pieces || slot_of(at.y) != params.slot { return; }
    let position = position_of(at.y);
    var value = vec4(0.0);
    if position > 0u && position <= sessions[params.slot].target_rows {
        let words = states[(position - 1u) * params.pieces + at.x];
        value = vec4(unpack2x16float(words.x), unpack2x16float(words.y));
    }
    y[at.y * params.pieces + at.x] = value;
}
