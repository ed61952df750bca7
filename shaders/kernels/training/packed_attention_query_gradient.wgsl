// The gradient of packed_attention by its queries, with p the softmax's weights:
//   ds = p * (dout . v - dout . out);  dq = sum over the keys k that the row sees of ds * k / sqrt(HEAD_DIM)
// Dao et al. 2022, arXiv:2205.14135, algorithm 4.
//
// Constants: as shared/packed_attention.
// Dispatch: x key-value heads, y pairs / TILE, z parts of a head.
@group(0) @binding(8) var<storage, read_write> query_gradient: array<vec4<f32>>;  // [rows, HEADS * HEAD_DIM]

var<workgroup> score_gradients: array<vec4<f32>, TILE * SIDE>;            // ds, [pairs, keys]

@compute @workgroup_size(64)
fn packed_attention_query_gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
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
    var state: array<vec2<f32>, 4>;
    for (var i = 0u; i < 4u; i++) {
        let pair = min(first + row_of_lane + i, pairs - 1u);
        queries[i] = pair_index(pair, kv_head) * PIECES * 2u;
        sights[i] = sight(pair / GROUP);
        state[i] = sums[pair_index(pair, kv_head)];
    }
    var gradient: array<array<Eight, STEPS>, 4>;
    for (var t = 0u; t < contexts + tiles.w - tiles.z; t++) {
        let first_key = select(tiles.z + t - contexts, tiles.x + t, t < contexts) * TILE;
        let key = first_key + column * 4u;
        var scores = score(&queries, kv_head, key);
        var products = value_products(&queries, kv_head, key);
        for (var i = 0u; i < 4u; i++) {
            let p = weights_of(scores[i], state[i].x, sights[i], key);
            score_gradients[(row_of_lane + i) * SIDE + column] = p * (products[i] - state[i].y);
        }
        workgroupBarrier();
        for (var four = 0u; four < SIDE; four++) {
            var w: array<vec4<f32>, 4>;
            for (var i = 0u; i < 4u; i++) { w[i] = score_gradients[(row_of_lane + i) * SIDE + four]; }
            for (var j = 0u; j < 4u; j++) {
                let at = place_of(kv_head, first_key + four * 4u + j);
                for (var s = 0u; s < STEPS; s++) {
                    let piece = min(group.z * PART + s * SIDE + column, PIECES - 1u);
                    let k = read_key8(at, piece);
                    for (var i = 0u; i < 4u; i++) { gradient[i][s] = add_scaled(w[i][j], k, gradient[i][s]); }
                }
            }
        }
        workgroupBarrier();
    }

    for (var i = 0u; i < 4u; i++) {
        if first + row_of_lane + i >= pairs { break; }
        for (var s = 0u; s < STEPS; s++) {
            let piece = group.z * PART + s * SIDE + column;
            if piece < PIECES {
                query_gradient[queries[i] + piece * 2u] = gradient[i][s].low * params.scale;
                query_gradient[queries[i] + piece * 2u + 1u] = gradient[i][s].high * params.scale;
            }
        }
    }
}
