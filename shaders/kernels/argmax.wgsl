// The largest logit of each row and where it is, first half: one candidate per section of SECTION logits.
// Among equals the lowest index wins, as in PyTorch and candle.
//
// Dispatch: x over sections, y over rows from first_row on.
struct ArgmaxParams {
    vocab: u32,      // width of a row
    limit: u32,      // logits that may be chosen
    first_row: u32,
}
@group(0) @binding(0) var<uniform> params: ArgmaxParams;
@group(0) @binding(1) var<storage, read> logits: array<f32>;              // [rows, vocab]
@group(0) @binding(2) var<storage, read_write> candidates: array<vec2<u32>>;  // [rows, sections]: bits of the logit, id

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn argmax(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = params.first_row + group.y;
    let first = group.x * SECTION;
    let end = min(first + SECTION, params.limit);
    var highest = Highest(LOWEST, first);
    for (var i = first + lane; i < end; i += LANES) {
        let logit = noised(row, i, logits[row * params.vocab + i]);
        if logit > highest.value { highest = Highest(logit, i); }
    }
    highest = highest_of(lane, highest);
    if lane == 0u { candidates[row * groups.x + group.x] = vec2(bitcast<u32>(highest.value), highest.index); }
}
