// The reference for other kernels' reads: a buffer is read once, side by side, and its words are combined.
//   sums[i] = xor of the words of all pieces that invocation i reads
// A workgroup reads STREAMS places at a time, which hides more of the memory's latency than one.
//
// Constants: STREAMS; STEPS pieces of 16 bytes in each per invocation; LANES * SLICES invocations in a workgroup.
// Dispatch: x over the buffer, which is a whole number of workgroups.
@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;        // [workgroups, STREAMS, STEPS, invocations]
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;          // [workgroups, invocations]

@compute @workgroup_size(LANES, SLICES)
fn bandwidth(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {
    const WIDTH = LANES * SLICES;
    var parts: array<vec4<u32>, STREAMS>;
    for (var i = 0u; i < STEPS; i++) {
        for (var s = 0u; s < STREAMS; s++) {
            parts[s] ^= source[((group.x * STREAMS + s) * STEPS + i) * WIDTH + invocation];
        }
    }
    var sum = vec4(0u);
    for (var s = 0u; s < STREAMS; s++) { sum ^= parts[s]; }
    sums[group.x * WIDTH + invocation] = (sum.x ^ sum.y) ^ (sum.z ^ sum.w);
}
