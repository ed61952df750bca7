// The gradient of swiglu by gate and up, for y = silu(g) * u and s = 1 / (1 + exp(-g)), the sigmoid of g:
// dg = dy * u * s * (1 + g * (1 - s)), du = dy * g * s. Shazeer 2020, arXiv:2002.05202.
//
// Constants: THREADS per workgroup.
// Dispatch: x over THREADS values of a row of dy, y over rows.
struct SwigluGradientParams { width: u32 }
@group(0) @binding(0) var<uniform> params: SwigluGradientParams;
@group(0) @binding(1) var<storage, read> x: array<f32>;           // [rows, 2 * width]: gates, then ups
@group(0) @binding(2) var<storage, read> dy: array<f32>;          // [rows, width]
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;    // as x

@compute @workgroup_size(THREADS)
fn swiglu_gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let i = group.x * THREADS + thread;
    if i >= params.width { return; }
    let at = 2u * group.y * params.width + i;
    // As in epilogue/swiglu.wgsl: exp must not overflow.
    let gate = max(x[at], -87.0);
    let up = x[at + params.width];
    let slope = dy[group.y * params.width + i];
    let e = exp(-gate);
    let sigmoid = 1.0 / (1.0 + e);
    // 1 - sigmoid, without the cancellation.
    let complement = e * sigmoid;
    dx[at] = slope * up * (sigmoid * (1.0 + gate * complement));
    dx[at + params.width] = slope * (gate * sigmoid);
}
