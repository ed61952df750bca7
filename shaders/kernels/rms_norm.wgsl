// Root-mean-square normalisation: y[r] = x[r] / sqrt(mean(x[r]^2) + eps) * gain.
// Zhang & Sennrich 2019, arXiv:1910.07467; eps as in Llama.
//
// Constants: LANES per row, a power of two. Which row of x row r of y is made of, norm_rows/ says.
// Dispatch: one workgroup per row.
struct RmsNormParams { pieces: u32, epsilon: f32 }
@group(0) @binding(0) var<uniform> params: RmsNormParams;                 // pieces = width / 4
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;             // [rows, width]
@group(0) @binding(3) var<storage, read> gain: array<vec4<f32>>;          // [width]
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;       // [rows, width]

@compute @workgroup_size(LANES)
fn rms_norm(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let source = source_of(group.x) * params.pieces;
    let scale = row_scale(source, params.pieces, params.epsilon, lane);
    write_row(group.x, source, scale, lane);
}

// Piece `i` of the row that begins at `source`, normalised.
fn normed(source: u32, i: u32, scale: f32) -> vec4<f32> { return x[source + i] * scale * gain[i]; }
