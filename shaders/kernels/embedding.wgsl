// Token embedding: y[r] = w[ids[r]]. A matrix too large for one binding comes in parts; each part writes its own rows.
// Ids past the vocabulary read its last row: a draft may be fed a padding id that only the target has. One id may have a
// row of its own: the mask token of a draft whose table is its target's (embedding_mask/).
//
// Dispatch: x over pieces of 8 in workgroups of 64, y over rows.
struct EmbeddingParams {
    pieces: u32,     // width / 8
    rows_out: u32,   // rows in this part
    first_out: u32,  // the part's first row
    vocab: u32,
    mask: u32,       // the id of the row of its own, if there is one
}
@group(0) @binding(0) var<uniform> params: EmbeddingParams;
@group(0) @binding(1) var<storage, read> ids: array<u32>;                 // [rows]
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;       // [rows, width]

@compute @workgroup_size(64)
fn embedding(@builtin(global_invocation_id) at: vec3<u32>) {
    let piece = at.x;
    if piece >= params.pieces { return; }
    let out = (at.y * params.pieces + piece) * 2u;
    if is_masked(ids[at.y], piece, out) { return; }
    let id = min(ids[at.y], params.vocab - 1u);
    if id < params.first_out || id - params.first_out >= params.rows_out { return; }
    let row = id - params.first_out;
    let value = weight8_of(row, piece, params.pieces);
    y[out] = value.low;
    y[out + 1u] = value.high;
}
