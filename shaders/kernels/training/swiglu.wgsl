// Gate and up to the feed-forward layer's activation: y[m, i] = silu(x[m, i]) * x[m, width + i], by epilogue/swiglu.wgsl.
// Training keeps gate and up, so that its products do not end in them as those of decoding do.
//
// Constants: THREADS per workgroup.
// Dispatch: x over THREADS values of a row of y, y over rows.
struct SwigluParams { width: u32 }
@group(0) @binding(0) var<uniform> params: SwigluParams;
@group(0) @binding(1) var<storage, read> x: array<f32>;          // [rows, 2 * width]: gates, then ups
@group(0) @binding(2) var<storage, read_write> y: array<f32>;    // [rows, width]

@compute @workgroup_size(THREADS)
fn swiglu(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let i = group.x * THREADS + thread;
    if i >= params.width { return; }
    let gate = 2u * group.y * params.width + i;
    finish(group.y * params.width + i, i, x[gate], x[gate + params.width]);
}
