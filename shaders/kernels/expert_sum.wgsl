// Sum of what a row's experts make of it, added to the residual stream: h[r] += sum over its TOP choices c of
// share[r, c] * y[r * TOP + c], in the order of choices.
//
// Constants: TOP experts of a row.
// Dispatch: x over 64 vectors of a row; y over rows.
struct ExpertSumParams { pieces: u32 }     // width / 4
@group(0) @binding(0) var<uniform> params: ExpertSumParams;
@group(0) @binding(1) var<storage, read> shares: array<f32>;                // [rows, TOP]
@group(0) @binding(2) var<storage, read> y: array<vec4<f32>>;               // [rows * TOP, width]
@group(0) @binding(3) var<storage, read_write> hidden: array<vec4<f32>>;    // [rows, width]

@compute @workgroup_size(64)
fn expert_sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.pieces { return; }
    var sum = vec4(0.0);
    for (var choice = 0u; choice < TOP; choice++) {
        let pair = group.y * TOP + choice;
        sum = fma(vec4(shares[pair]), y[pair * params.pieces + id.x], sum);
    }
    hidden[group.y * params.pieces + id.x] += sum;
}
