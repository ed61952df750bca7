// The token of each row of a batch's pass: the choice of a row of the previous pass, or one that the host knows.
//
// Dispatch: one workgroup; an invocation a row.
struct BatchSource {
    row: u32,    // row of the previous pass; NO_ROW: none
    token: u32,  // then this token
}
@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> sources: array<BatchSource>;     // [rows]
@group(0) @binding(2) var<storage, read> choices: array<u32>;             // of the pass before
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;           // [rows]

@compute @workgroup_size(32)
fn batch_ids(@builtin(local_invocation_index) row: u32) {
    if row >= step.rows { return; }
    let source = sources[row];
    if source.row == NO_ROW {
        ids[row] = source.token;
    } else {
        ids[row] = choices[source.row];
    }
}
