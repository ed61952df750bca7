// Speculative sampling (Leviathan et al. 2023, arXiv:2211.17192): the proposal d of a row, which was drawn from q, becomes
// the row's choice with chance min(1, p(d) / q(d)), p being the target's distribution; else a token is drawn from
// max(p - q, 0), scaled. So the choice is distributed as p. The row behind the last proposal draws from p.
//
// A refused d is never drawn again: it was refused for p(d) < q(d). So a choice that is the proposal says that it was
// accepted, and `accept` needs to know no more.
//
// The sequence has the pass to itself: proposal r + 1 is row r's, and the last row has none.
//
// Dispatch: one workgroup per row.
struct RejectionParams { vocab: u32 }                                     // width of a row
@group(0) @binding(0) var<uniform> params: RejectionParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> target_chances: array<f32>;      // [rows, vocab]: p
@group(0) @binding(3) var<storage, read> draft_chances: array<f32>;       // [proposals, vocab]: q
@group(0) @binding(4) var<storage, read> proposals: array<u32>;           // d1 ..
@group(0) @binding(5) var<storage, read_write> choices: array<u32>;

const LANES: u32 = 256u;

@compute @workgroup_size(LANES)
fn rejection(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x;
    let first = row * params.vocab;
    let position = output_position(row);
    let terms = sampling[output_turn(row)];
    let is_checked = row + 1u < step.outputs;
    // A lane without a chance ends at an index past all others.
    var highest = Highest(LOWEST, params.vocab);
    for (var i = lane; i < params.vocab; i += LANES) {
        var chance = target_chances[first + i];
        if is_checked { chance -= draft_chances[first + i]; }
        if chance > 0.0 {
            let score = log(chance) + gumbel(i, position, terms.seed);
            if score > highest.value { highest = Highest(score, i); }
        }
    }
    var index = highest_of(lane, highest).index;
    if lane != 0u { return; }
    if is_checked {
        let proposal = proposals[row];
        let share = (f32(hash(vec3(proposal, position, terms.accept_seed))) + 0.5) * 0x1p-32;
        let p = target_chances[first + proposal];
        // If p equals q, nothing is left to draw from, and a rejection is a matter of rounding.
        if (p > 0.0 && share * draft_chances[first + proposal] <= p) || index == params.vocab { index = proposal; }
    }
    choices[batch[row].choice] = index;
}
