// The experts of each row: the TOP highest of its scores, from the highest on, the lowest index first among equals. The
// share of expert i is exp(s[i]) over the sum of exp(s) of all experts, or of the chosen ones alone. Shazeer et al. 2017,
// arXiv:1701.06538.
//
// Constants: LANES of a workgroup, a power of two; EXPERTS; TOP experts of a row; NORMALISED 1 if shares add up to 1.
// Dispatch: a workgroup for each row.
@group(0) @binding(0) var<storage, read> scores: array<f32>;            // [rows, EXPERTS]
@group(0) @binding(1) var<storage, read_write> chosen: array<u32>;      // [rows, TOP]
@group(0) @binding(2) var<storage, read_write> shares: array<f32>;      // [rows, TOP]

@compute @workgroup_size(LANES)
fn expert_route(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * EXPERTS;
    var last = Highest(0.0, 0u);
    var highest = 0.0;
    var sum = 0.0;
    for (var rank = 0u; rank < TOP; rank++) {
        // An index that exists, even if scores are no numbers.
        var own = Highest(LOWEST, EXPERTS - 1u);
        for (var i = lane; i < EXPERTS; i += LANES) {
            let score = scores[first + i];
            let is_left = rank == 0u || score < last.value || (score == last.value && i > last.index);
            if is_left && score > own.value { own = Highest(score, i); }
        }
        last = highest_of(lane, own);
        if rank == 0u { highest = last.value; }
        let weight = exp(last.value - highest);
        sum += weight;
        if lane == 0u {
            chosen[group.x * TOP + rank] = last.index;
            shares[group.x * TOP + rank] = weight;
        }
    }
    if NORMALISED == 0u {
        var own = 0.0;
        for (var i = lane; i < EXPERTS; i += LANES) { own += exp(scores[first + i] - highest); }
        sum = total(lane, own);
    }
    if lane == 0u {
        for (var rank = 0u; rank < TOP; rank++) { shares[group.x * TOP + rank] /= sum; }
    }
}
