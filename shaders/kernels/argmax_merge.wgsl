// The largest logit of each row, second half: the best candidate of all sections becomes the row's choice.
// Which token that is, choice/ says.
//
// Dispatch: one workgroup; an invocation a row, from first_row on.
struct ArgmaxMergeParams { sections: u32, first_row: u32 }
@group(0) @binding(0) var<uniform> params: ArgmaxMergeParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> candidates: array<vec2<u32>>;    // [rows, sections]: bits of the logit, id
@group(0) @binding(3) var<storage, read_write> choices: array<u32>;       // by batch[row].choice

@compute @workgroup_size(32)
fn argmax_merge(@builtin(local_invocation_index) lane: u32) {
    let row = params.first_row + lane;
    if row >= step.outputs { return; }
    var best = candidates[row * params.sections];
    for (var i = 1u; i < params.sections; i++) {
        let other = candidates[row * params.sections + i];
        // Sections come in the order of their ids, so the earlier of two equals is the lower id.
        if bitcast<f32>(other.x) > bitcast<f32>(best.x) { best = other; }
    }
    choices[batch[row].choice] = token(best.y);
}
