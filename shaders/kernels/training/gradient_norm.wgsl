// The norm of all gradients, first half: the sum of squares of each section of one buffer.
//
// Constants: SECTION pieces of 4 in a section.
// Dispatch: x and y over sections.
struct GradientNormParams { pieces: u32, sections: u32, first: u32 }      // first: where the buffer's sums begin
@group(0) @binding(0) var<uniform> params: GradientNormParams;
@group(0) @binding(1) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;          // [sections of all buffers]

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn gradient_norm(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let section = group.x + group.y * groups.x;
    if section >= params.sections { return; }
    let end = min((section + 1u) * SECTION, params.pieces);
    var squares = vec4(0.0);
    for (var i = section * SECTION + lane; i < end; i += LANES) {
        let g = gradient[i];
        squares = fma(g, g, squares);
    }
    let sum = total(lane, (squares.x + squares.y) + (squares.z + squares.w));
    if lane == 0u { sums[params.first + section] = sum; }
}
