// Forbids the tokens that a row's grammar does not allow: their logits become the lowest number there is. Rows whose turn has
// no grammar keep theirs.
//
// Constants: CHOICES, room for a turn's proposals; GRAMMAR, the bit of a turn's changes that asks for it.
// Dispatch: x over logits in workgroups of 64, y over rows from first_row on.
struct ConstrainParams {
    vocab: u32,       // width of a row
    limit: u32,       // logits that may be chosen
    first_row: u32,
    words: u32,       // of a row's mask
}
@group(0) @binding(0) var<uniform> params: ConstrainParams;
@group(0) @binding(1) var<storage, read> masks: array<u32>;               // [rows, words]: a bit for each token
@group(0) @binding(2) var<storage, read_write> scores: array<f32>;        // [rows, vocab]

@compute @workgroup_size(64)
fn constrain(@builtin(global_invocation_id) at: vec3<u32>) {
    let index = at.x;
    if index >= params.limit { return; }
    let row = params.first_row + at.y;
    if (sampling[output_turn(row)].changes & GRAMMAR) == 0u { return; }
    let id = token(index);
    let word = masks[row * params.words + id / 32u];
    if ((word >> (id % 32u)) & 1u) == 0u { scores[row * params.vocab + index] = LOWEST; }
}
