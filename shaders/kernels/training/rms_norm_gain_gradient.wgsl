// The gradient of rms_norm's gain, first half: each of SECTIONS runs of rows sums dy * x * scale over its rows.
//
// Constants: OUTPUT_ROWS as in rms_norm_gradient; SECTIONS.
// Dispatch: x over pieces of 4 in workgroups of 64, y over sections.
@group(0) @binding(0) var<uniform> params: RmsNormGradientParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;             // [rows, width]
@group(0) @binding(3) var<storage, read> dy: array<vec4<f32>>;            // [rows, width]
@group(0) @binding(4) var<storage, read> scales: array<f32>;              // [rows], as dy's
@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>;    // [SECTIONS, width]

@compute @workgroup_size(64)
fn rms_norm_gain_gradient(@builtin(global_invocation_id) at: vec3<u32>) {
    let piece = at.x;
    if piece >= params.pieces { return; }
    let rows = select(step.rows, step.outputs, OUTPUT_ROWS != 0u);
    let offset = select(0u, step.first_output, OUTPUT_ROWS != 0u);
    let run = (rows + SECTIONS - 1u) / SECTIONS;
    let first = at.y * run;
    let end = min(first + run, rows);
    var sum = vec4(0.0);
    for (var row = first; row < end; row++) {
        let scaled = x[(offset + row) * params.pieces + piece] * scales[row];
        sum = fma(dy[row * params.pieces + piece], scaled, sum);
    }
    sums[at.y * params.pieces + piece] = sum;
}
