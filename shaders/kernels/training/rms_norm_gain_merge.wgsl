// The gradient of rms_norm's gain, second half: dgain += the sections' sums, in order.
//
// Constants: SECTIONS.
// Dispatch: x over pieces of 4 in workgroups of 64.
@group(0) @binding(0) var<uniform> params: RmsNormGradientParams;
@group(0) @binding(1) var<storage, read> sums: array<vec4<f32>>;          // [SECTIONS, width]
@group(0) @binding(2) var<storage, read_write> dgain: array<vec4<f32>>;   // [width]

@compute @workgroup_size(64)
fn rms_norm_gain_merge(@builtin(global_invocation_id) at: vec3<u32>) {
    let piece = at.x;
    if piece >= params.pieces { return; }
    var sum = vec4(0.0);
    for (var section = 0u; section < SECTIONS; section++) { sum += sums[section * params.pieces + piece]; }
    dgain[piece] += sum;
}
