// Sums over a row's whole softmax for the gradients of attention: log_sum, and the output's gradient along the output.
//   sums[r, h] = log_sums[r, h], dout[r, h] . out[r, h]
//
// Constants: HEADS, HEAD_DIM.
// Dispatch: x over rows * HEADS in workgroups of 64.
@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> out: array<vec4<f32>>;               // [rows, HEADS * HEAD_DIM]
@group(0) @binding(2) var<storage, read> output_gradient: array<vec4<f32>>;   // [rows, HEADS * HEAD_DIM]
@group(0) @binding(3) var<storage, read> log_sums: array<f32>;                // [rows, HEADS]
@group(0) @binding(4) var<storage, read_write> sums: array<vec2<f32>>;        // [rows, HEADS]

@compute @workgroup_size(64)
fn packed_attention_sums(@builtin(global_invocation_id) at: vec3<u32>) {
    if at.x >= step.rows * HEADS { return; }
    let first = at.x * HEAD_DIM / 8u * 2u;
    var along = 0.0;
    for (var i = first; i < first + HEAD_DIM / 4u; i += 2u) {
        let gradient = Eight(output_gradient[i], output_gradient[i + 1u]);
        along = dot_add(gradient, Eight(out[i], out[i + 1u]), along);
    }
    sums[at.x] = vec2(log_sums[at.x], along);
}
