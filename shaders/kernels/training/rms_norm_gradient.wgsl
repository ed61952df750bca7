// The gradient of rms_norm's input: with scale = 1 / sqrt(mean(x^2) + eps) and n values in a row,
//   dx += scale * (gain * dy - x * scale^2 / n * sum(gain * dy * x)).
// The rows' scales are kept for the gradient of the gain.
//
// Constants: LANES per row, a power of two; OUTPUT_ROWS 1 if dy's first row belongs to the first row whose output is
// wanted.
// Dispatch: one workgroup per row.
@group(0) @binding(0) var<uniform> params: RmsNormGradientParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;             // [rows, width]
@group(0) @binding(3) var<storage, read> gain: array<vec4<f32>>;          // [width]
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>;            // [rows, width]
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>;      // [rows, width]
@group(0) @binding(6) var<storage, read_write> scales: array<f32>;        // [rows], as dy's

@compute @workgroup_size(LANES)
fn rms_norm_gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if group.x >= select(step.rows, step.outputs, OUTPUT_ROWS != 0u) { return; }
    let above = group.x * params.pieces;
    var own = above;
    if OUTPUT_ROWS != 0u { own += step.first_output * params.pieces; }

    var squares = vec4(0.0);
    var products = vec4(0.0);
    for (var i = lane; i < params.pieces; i += LANES) {
        let v = x[own + i];
        squares = fma(v, v, squares);
        products = fma(gain[i] * dy[above + i], v, products);
    }
    let square = total(lane, (squares.x + squares.y) + (squares.z + squares.w));
    let product = total(lane, (products.x + products.y) + (products.z + products.w));
    let n = f32(4u * params.pieces);
    let scale = 1.0 / sqrt(square / n + params.epsilon);
    let along = scale * scale * (product / n);

    for (var i = lane; i < params.pieces; i += LANES) {
        dx[own + i] += scale * (gain[i] * dy[above + i] - x[own + i] * along);
    }
    if lane == 0u { scales[group.x] = scale; }
}
