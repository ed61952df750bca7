// The gradients of packed_attention by its keys and values, with p the softmax's weights and ds as in
// packed_attention_query_gradient, over the rows that see the key and the query heads that share it:
//   dk = sum of ds * q / sqrt(HEAD_DIM);  dv = sum of p * dout
// Dao et al. 2022, arXiv:2205.14135, algorithm 4.
//
// Constants: as shared/packed_attention.
// Dispatch: x key-value heads, y rows / TILE, z parts of a head.
@group(0) @binding(8) var<storage, read_write> key_gradient: array<vec4<f32>>;    // [rows, KV_HEADS * HEAD_DIM]
@group(0) @binding(9) var<storage, read_write> value_gradient: array<vec4<f32>>;  // [rows, KV_HEADS * HEAD_DIM]

var<workgroup> weights: array<vec4<f32>, TILE * SIDE>;                    // p, [pairs, keys]
var<workgroup> score_gradients: array<vec4<f32>, TILE * SIDE>;            // ds, [pairs, keys]

@compute @workgroup_size(64)
fn packed_attention_key_gradient(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let kv_head = group.x;
    let first_key = group.y * TILE;
    if first_key >= step.rows { return; }
    // The rows that see any of the keys: first_key .. near_end, and far_first .. far_end beyond those.
    var near_end = first_key;
    var far_first = step.rows;
    var far_end = 0u;
    for (var key = first_key; key < min(first_key + TILE, step.rows); key++) {
        let later_first = training_rows[key].later_first;
        let later_end = training_rows[key].later_end;
        near_end = max(near_end, training_rows[key].real_end);
        if later_first < later_end {
            far_first = min(far_first, later_first);
            far_end = max(far_end, later_end);
        }
    }
    far_first = max(far_first, near_end);
    far_end = max(far_end, far_first);
    let near = ((near_end - first_key) * GROUP + TILE - 1u) / TILE;
    let far = ((far_end - far_first) * GROUP + TILE - 1u) / TILE;
    let row_of_lane = lane / SIDE * 4u;
    let column = lane % SIDE;
    let key = first_key + column * 4u;

    var by_key: array<array<Eight, STEPS>, 4>;
    var by_value: array<array<Eight, STEPS>, 4>;
    for (var t = 0u; t < near + far; t++) {
        let is_near = t < near;
        let first = select(far_first * GROUP + (t - near) * TILE, first_key * GROUP + t * TILE, is_near);
        let end = select(far_end, near_end, is_near) * GROUP;
        var queries: array<u32, 4>;
        var sights: array<vec4<u32>, 4>;
        var state: array<vec2<f32>, 4>;
        for (var i = 0u; i < 4u; i++) {
            let pair = first + row_of_lane + i;
            let known = min(pair, end - 1u);
            queries[i] = pair_index(known, kv_head) * PIECES * 2u;
            state[i] = sums[pair_index(known, kv_head)];
            // A pair past the end sees nothing.
            sights[i] = select(vec4(0u, 0u, 1u, 0u), sight(known / GROUP), pair < end);
        }
        var scores = score(&queries, kv_head, key);
        var products = value_products(&queries, kv_head, key);
        for (var i = 0u; i < 4u; i++) {
            let p = weights_of(scores[i], state[i].x, sights[i], key);
            weights[(row_of_lane + i) * SIDE + column] = p;
            score_gradients[(row_of_lane + i) * SIDE + column] = p * (products[i] - state[i].y);
        }
        workgroupBarrier();
        // From here on the lane's rows are keys.
        for (var n = 0u; n < TILE; n++) {
            let p = weights[n * SIDE + lane / SIDE];
            let ds = score_gradients[n * SIDE + lane / SIDE];
            let at = pair_index(min(first + n, end - 1u), kv_head) * PIECES * 2u;
            for (var s = 0u; s < STEPS; s++) {
                let start = at + min(group.z * PART + s * SIDE + column, PIECES - 1u) * 2u;
                let q = Eight(query[start], query[start + 1u]);
                let g = Eight(output_gradient[start], output_gradient[start + 1u]);
                for (var i = 0u; i < 4u; i++) {
                    by_key[i][s] = add_scaled(ds[i], q, by_key[i][s]);
                    by_value[i][s] = add_scaled(p[i], g, by_value[i][s]);
                }
            }
        }
        workgroupBarrier();
    }

    for (var i = 0u; i < 4u; i++) {
        let row = first_key + row_of_lane + i;
        if row >= step.rows { break; }
        for (var s = 0u; s < STEPS; s++) {
            let piece = group.z * PART + s * SIDE + column;
            if piece < PIECES {
                let at = ((row * KV_HEADS + kv_head) * PIECES + piece) * 2u;
                key_gradient[at] = by_key[i][s].low * params.scale;
                key_gradient[at + 1u] = by_key[i][s].high * params.scale;
                value_gradient[at] = by_value[i][s].low;
                value_gradient[at + 1u] = by_value[i][s].high;
            }
        }
    }
}
