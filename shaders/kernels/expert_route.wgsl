// The experts of each row: the TOP highest of its scores, from the highest on, the lowest index first among equals. The
// share of expert i is exp(s[i]) over the sum of exp(s) of all experts, or of the chosen ones alone. Shazeer et al. 2017,
// arXiv:1701.06538.
// An expert's rank is the number of those before it, which all experts count at once, with no turn for each choice.
//
// Constants: LANES of a workgroup, a power of two; EXPERTS; TOP experts of a row; NORMALISED 1 if shares add up to 1.
// Dispatch: a workgroup for each row.
@group(0) @binding(0) var<storage, read> scores: array<f32>;            // [rows, EXPERTS]
@group(0) @binding(1) var<storage, read_write> chosen: array<u32>;      // [rows, TOP]
@group(0) @binding(2) var<storage, read_write> shares: array<f32>;      // [rows, TOP]

const VECTORS: u32 = (EXPERTS + 3u) / 4u;
var<workgroup> keys: array<vec4<u32>, VECTORS>;
var<workgroup> top: array<f32, TOP>;

@compute @workgroup_size(LANES)
fn expert_route(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * EXPERTS;
    for (var v = lane; v < VECTORS; v += LANES) {
        let i = 4u * v;
        keys[v] = vec4(key_at(first, i), key_at(first, i + 1u), key_at(first, i + 2u), key_at(first, i + 3u));
    }
    workgroupBarrier();
    for (var i = lane; i < EXPERTS; i += LANES) {
        let own = vec4(keys[i / 4u][i % 4u]);
        var before = vec4(0u);
        for (var v = 0u; v < VECTORS; v++) {
            let is_lower = vec4(4u * v, 4u * v + 1u, 4u * v + 2u, 4u * v + 3u) < vec4(i);
            before += select(vec4(0u), vec4(1u), (keys[v] > own) | ((keys[v] == own) & is_lower));
        }
        let rank = before.x + before.y + before.z + before.w;
        if rank < TOP {
            chosen[group.x * TOP + rank] = i;
            top[rank] = scores[first + i];
        }
    }
    workgroupBarrier();
    let highest = top[0];
    var sum = 0.0;
    if NORMALISED == 0u {
        for (var i = lane; i < EXPERTS; i += LANES) { sum += exp(scores[first + i] - highest); }
        sum = total(lane, sum);
    } else {
        for (var rank = 0u; rank < TOP; rank++) { sum += exp(top[rank] - highest); }
    }
    for (var rank = lane; rank < TOP; rank += LANES) {
        shares[group.x * TOP + rank] = exp(top[rank] - highest) / sum;
    }
}

// A number that is the larger, the larger the score of expert `i` is, and 0 past the last one. No two orders are possible,
// even if scores are no numbers, so that every rank is an expert's.
fn key_at(first: u32, i: u32) -> u32 {
    if i >= EXPERTS { return 0u; }
    let bits = bitcast<u32>(scores[first + i]);
    if bits == 0x80000000u { return bits; }    // -0 is 0
    return select(bits | 0x80000000u, ~bits, bits > 0x7fffffffu);
}
