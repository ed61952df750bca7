// Keeps a row of each row of a target's pass, by slot and position, for the draft's row of the token after it:
// kept[slot, p + 1] = x[r], for row r at position p.
//
// Dispatch: x over pieces of 4 in workgroups of 64, y over rows.
struct KeptParams {
    pieces: u32,     // width / 4
    positions: u32,  // of a slot
}
@group(0) @binding(0) var<uniform> params: KeptParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;           // [rows, width]
@group(0) @binding(3) var<storage, read_write> kept: array<vec4<f32>>;  // [slots, positions, width]

@compute @workgroup_size(64)
fn keep(@builtin(global_invocation_id) at: vec3<u32>) {
    let place = position_of(at.y) + 1u;
    if at.x >= params.pieces || place >= params.positions { return; }
    kept[(slot_of(at.y) * params.positions + place) * params.pieces + at.x] = x[at.y * params.pieces + at.x];
}
