// SwiGLU's gate: y[r, i] = silu(gate[r, i]) * up[r, i], silu(g) = g / (1 + exp(-g)). Shazeer 2020, arXiv:2002.05202.
//
// Dispatch: x over the width in pieces of 4 and workgroups of 64, y over rows.
struct SwigluParams { pieces: u32 }                                       // width / 4
@group(0) @binding(0) var<uniform> params: SwigluParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;             // [rows, 2 * width]: gate, then up
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;       // [rows, width]

@compute @workgroup_size(64)
fn swiglu(@builtin(global_invocation_id) at: vec3<u32>) {
    if at.x >= params.pieces { return; }
    let source = at.y * params.pieces * 2u + at.x;
    // Clamped where silu is -1e-36 and smaller: exp must not overflow, since a shader may assume that nothing does.
    let gate = max(x[source], vec4(-87.0));
    y[at.y * params.pieces + at.x] = gate / (1.0 + exp(-gate)) * x[source + params.pieces];
}
