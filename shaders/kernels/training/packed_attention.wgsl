// Attention of the packed rows of a training step, for a tile of pairs of (row, query head) that share a key-value head:
//   out = sum over the keys k that the row sees of softmax(q . k / sqrt(HEAD_DIM)) * v;  log_sum = ln(sum of exp(score))
// Online softmax over tiles of keys in ascending order (Milakov & Gimelshein 2018, arXiv:1805.02867).
//
// Constants: as shared/packed_attention.
// Dispatch: x key-value heads, y pairs / TILE, z parts of a head.
@group(0) @binding(6) var<storage, read_write> out: array<vec4<f32>>;     // [rows, HEADS * HEAD_DIM]
@group(0) @binding(7) var<storage, read_write> log_sums: array<f32>;      // [rows, HEADS]

var<workgroup> weights: array<vec4<f32>, TILE * SIDE>;                    // exp(score - largest), [pairs, keys]
var<workgroup> gathered: array<f32, TILE * SIDE>;

@compute @workgroup_size(64)
fn packed_attention(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let kv_head = group.x;
    let first = group.y * TILE;
    let pairs = step.rows * GROUP;
    if first >= pairs { return; }
    let tiles = seen_tiles(first / GROUP, (min(first + TILE, pairs) - 1u) / GROUP);
    let contexts = tiles.y - tiles.x;
    let row_of_lane = lane / SIDE * 4u;
    let column = lane % SIDE;

    var queries: array<u32, 4>;
    var sights: array<vec4<u32>, 4>;
    for (var i = 0u; i < 4u; i++) {
        let pair = min(first + row_of_lane + i, pairs - 1u);
        queries[i] = pair_index(pair, kv_head) * PIECES * 2u;
        sights[i] = sight(pair / GROUP);
    }
    var largest = vec4(LOWEST);                        // of each of the lane's pairs
    var total = vec4(0.0);                             // over the lane's keys
    var sums: array<array<Eight, STEPS>, 4>;
    for (var t = 0u; t < contexts + tiles.w - tiles.z; t++) {
        let first_key = select(tiles.z + t - contexts, tiles.x + t, t < contexts) * TILE;
        let key = first_key + column * 4u;
        var scores = score(&queries, kv_head, key);
        for (var i = 0u; i < 4u; i++) {
            scores[i] = select(vec4(LOWEST), scores[i], visible(sights[i], key));
            let s = scores[i];
            gathered[(row_of_lane + i) * SIDE + column] = max(max(s.x, s.y), max(s.z, s.w));
        }
        workgroupBarrier();
        let before = largest;
        for (var i = 0u; i < 4u; i++) {
            for (var k = 0u; k < SIDE; k++) { largest[i] = max(largest[i], gathered[(row_of_lane + i) * SIDE + k]); }
        }
        let kept = exp_below(before - largest);
        for (var i = 0u; i < 4u; i++) {
            let e = select(vec4(0.0), exp_below(scores[i] - largest[i]), visible(sights[i], key));
            weights[(row_of_lane + i) * SIDE + column] = e;
            total[i] = total[i] * kept[i] + ((e.x + e.y) + (e.z + e.w));
            for (var s = 0u; s < STEPS; s++) {
                sums[i][s] = Eight(sums[i][s].low * kept[i], sums[i][s].high * kept[i]);
            }
        }
        workgroupBarrier();
        for (var four = 0u; four < SIDE; four++) {
            var w: array<vec4<f32>, 4>;
            for (var i = 0u; i < 4u; i++) { w[i] = weights[(row_of_lane + i) * SIDE + four]; }
            for (var j = 0u; j < 4u; j++) {
                let at = place_of(kv_head, first_key + four * 4u + j);
                for (var s = 0u; s < STEPS; s++) {
                    let piece = min(group.z * PART + s * SIDE + column, PIECES - 1u);
                    let v = read_value8(at, piece);
                    for (var i = 0u; i < 4u; i++) { sums[i][s] = add_scaled(w[i][j], v, sums[i][s]); }
                }
            }
        }
    }

    for (var i = 0u; i < 4u; i++) { gathered[(row_of_lane + i) * SIDE + column] = total[i]; }
    workgroupBarrier();
    for (var i = 0u; i < 4u; i++) {
        let pair = first + row_of_lane + i;
        if pair >= pairs { break; }
        var sum = 0.0;
        for (var k = 0u; k < SIDE; k++) { sum += gathered[(row_of_lane + i) * SIDE + k]; }
        for (var s = 0u; s < STEPS; s++) {
            let piece = group.z * PART + s * SIDE + column;
            if piece < PIECES {
                out[queries[i] + piece * 2u] = sums[i][s].low / sum;
                out[queries[i] + piece * 2u + 1u] = sums[i][s].high / sum;
            }
        }
        if group.z == 0u && column == 0u { log_sums[pair_index(pair, kv_head)] = largest[i] + log(sum); }
    }
}
