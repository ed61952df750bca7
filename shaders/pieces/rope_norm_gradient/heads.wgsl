// Qwen3's normalisation of each head, y = x * s * gain with s = 1 / sqrt(mean(x^2) + eps), backwards:
//   dx = s * (dy * gain - x * pull),  pull = s^2 * sum(dy * gain * x) / HEAD_DIM
@group(0) @binding(AT_QKV) var<storage, read> qkv: array<vec4<f32>>;           // [rows, ALL_HEADS * HEAD_DIM]

fn pull(row: u32, head: u32, first: u32, scale: f32) -> f32 {
    var sums = vec4(0.0);
    for (var i = 0u; i < HALF; i++) {
        let dy = turned_back(row, head, i);
        sums = fma(dy.low * head_gain(head >= HEADS, i), qkv[first + i], sums);
        sums = fma(dy.high * head_gain(head >= HEADS, i + HALF), qkv[first + i + HALF], sums);
    }
    return ((sums.x + sums.y) + (sums.z + sums.w)) * scale * scale / f32(HEAD_DIM);
}

fn through_norm(gradient: vec4<f32>, index: u32, scale: f32, pulled: f32) -> vec4<f32> {
    return (gradient - qkv[index] * pulled) * scale;
}
