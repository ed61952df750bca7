// The norm of all gradients, second half: the root of the sum over all sections.
//
// Dispatch: one workgroup.
struct GradientNormMergeParams { sections: u32 }
@group(0) @binding(0) var<uniform> params: GradientNormMergeParams;
@group(0) @binding(1) var<storage, read> sums: array<f32>;                // [sections of all buffers]
@group(0) @binding(2) var<storage, read_write> norm: array<f32>;          // [1]

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn gradient_norm_merge(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < params.sections; i += LANES) { sum += sums[i]; }
    sum = total(lane, sum);
    if lane == 0u { norm[0] = sqrt(sum); }
}
