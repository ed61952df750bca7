// Code shared by both gradients of the attention of training rows. Softmax weights are recomputed from log_sums.
@group(0) @binding(6) var<storage, read> output_gradient: array<vec4<f32>>;   // [rows, HEADS * HEAD_DIM]
@group(0) @binding(7) var<storage, read> sums: array<vec2<f32>>;              // [rows, HEADS]: log_sum, dout . out

// The products of four pairs' output gradients, which begin at `gradients`, and the four values from `key` on.
fn value_products(gradients: ptr<function, array<u32, 4>>, kv_head: u32, key: u32) -> array<vec4<f32>, 4> {
    var at: array<u32, 4>;
    for (var j = 0u; j < 4u; j++) { at[j] = place_of(kv_head, key + j); }
    var products: array<vec4<f32>, 4>;
    for (var piece = 0u; piece < PIECES; piece++) {
        var v: array<Eight, 4>;
        for (var j = 0u; j < 4u; j++) { v[j] = read_value8(at[j], piece); }
        for (var i = 0u; i < 4u; i++) {
            let start = (*gradients)[i] + piece * 2u;
            let g = Eight(output_gradient[start], output_gradient[start + 1u]);
            for (var j = 0u; j < 4u; j++) { products[i][j] = dot_add(g, v[j], products[i][j]); }
        }
    }
    return products;
}

// softmax's weights of the four keys from `key` on.
fn weights_of(scores: vec4<f32>, log_sum: f32, sight: vec4<u32>, key: u32) -> vec4<f32> {
    return select(vec4(0.0), exp_below(scores - log_sum), visible(sight, key));
}
