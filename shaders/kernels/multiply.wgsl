// The reference for other kernels' arithmetic: SUMS sums of four in registers, STEPS fused multiply-adds to each.
//   sums[i] = the sums of invocation i, added up
//
// Constants: STEPS; SUMS.
// Dispatch: x over workgroups of 64.
@group(0) @binding(0) var<storage, read_write> sums: array<vec4<f32>>;    // [workgroups, 64]

@compute @workgroup_size(64)
fn multiply(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {
    let at = group.x * 64u + invocation;
    // Values that the compiler cannot know, and that stay finite: x <- x / 2 + 1 / 2 tends to 1.
    let start = vec4(f32(at & 1u));
    var parts: array<vec4<f32>, SUMS>;
    for (var s = 0u; s < SUMS; s++) { parts[s] = start + vec4(f32(s)); }
    for (var i = 0u; i < STEPS; i++) {
        for (var s = 0u; s < SUMS; s++) { parts[s] = fma(parts[s], vec4(0.5), vec4(0.5)); }
    }
    var sum = vec4(0.0);
    for (var s = 0u; s < SUMS; s++) { sum += parts[s]; }
    sums[at] = sum;
}
