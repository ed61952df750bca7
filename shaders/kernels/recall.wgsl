// Adds to a draft's embeddings what was kept of the target's states: h[r] += kept[slot, p], for row r at position p. The
// last that is there is at position n, the number of rows that the target has read. Rows beyond it, which are masks and
// the draft's own proposals, repeat it if REPEAT is 1, and read nothing if it is 0.
//
// Dispatch: x over pieces of 4 in workgroups of 64, y over rows.
struct KeptParams {
    pieces: u32,     // width / 4
    positions: u32,  // of a slot
}
@group(0) @binding(0) var<uniform> params: KeptParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> sessions: array<Session>;   // by slot
@group(0) @binding(3) var<storage, read> kept: array<vec4<f32>>;     // [slots, positions, width]
@group(0) @binding(4) var<storage, read_write> h: array<vec4<f32>>;  // [rows, width]

@compute @workgroup_size(64)
fn recall(@builtin(global_invocation_id) at: vec3<u32>) {
    let slot = slot_of(at.y);
    let position = position_of(at.y);
    let last = sessions[slot].target_rows;
    if at.x >= params.pieces || (REPEAT == 0u && position > last) { return; }
    let place = min(min(position, last), params.positions - 1u);
    h[at.y * params.pieces + at.x] += kept[(slot * params.positions + place) * params.pieces + at.x];
}
