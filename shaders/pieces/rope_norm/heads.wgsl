// Qwen3: each head of q and k is normalised before it is rotated, x / sqrt(mean(x^2) + eps) * gain.
@group(0) @binding(AT_QUERY_GAIN) var<storage, read> query_gain: array<vec4<f32>>;    // [HEAD_DIM]
@group(0) @binding(AT_KEY_GAIN) var<storage, read> key_gain: array<vec4<f32>>;      // [HEAD_DIM]

fn head_scale(first: u32) -> f32 {
    var squares = vec4(0.0);
    for (var i = 0u; i < HEAD_DIM / 4u; i++) {
        let v = qkv[first + i];
        squares = fma(v, v, squares);
    }
    let mean = ((squares.x + squares.y) + (squares.z + squares.w)) / f32(HEAD_DIM);
    return 1.0 / sqrt(mean + params.epsilon);
}

fn head_gain(is_key: bool, piece: u32) -> vec4<f32> {
    if is_key { return key_gain[piece]; }
    return query_gain[piece];
}
