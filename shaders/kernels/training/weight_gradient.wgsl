// The gradient of a product by its weights: dw[o, c] += sum over m of dy[m, o] * x[m, c].
// Each invocation holds BLOCKS x PIECES x 8 sums in registers, and takes the rows in order. Its neighbours own the
// neighbouring weight rows, as in the product: they read dy side by side and the same x, and write as the weights lie.
//
// Constants: BLOCKS of LANES weight rows; PIECES of 8 columns.
// Dispatch: x over BLOCKS * LANES weight rows, y over PIECES * 8 columns.
struct WeightGradientParams {
    pieces: u32,     // width of x / 8
    rows_out: u32,   // outputs of this part of the matrix
    first_out: u32,  // the part's first output
    stride: u32,     // width of dy
}
@group(0) @binding(0) var<uniform> params: WeightGradientParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;          // [rows, 8 * pieces]
@group(0) @binding(3) var<storage, read> dy: array<f32>;               // [rows, stride]
@group(0) @binding(4) var<storage, read_write> dw: array<vec4<f32>>;   // as the part's weights in f32

// Rows read at a time: sums that do not fit in registers are fetched once for all of them.
const DEPTH: u32 = 4u;

@compute @workgroup_size(LANES)
fn weight_gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = group.x * BLOCKS;
    let first = group.y * PIECES;
    let last_out = params.rows_out - 1u;
    let last_piece = params.pieces - 1u;
    let last_row = step.rows - 1u;

    var sums: array<array<Eight, PIECES>, BLOCKS>;
    for (var first_row = 0u; first_row < step.rows; first_row += DEPTH) {
        var v: array<array<Eight, DEPTH>, PIECES>;
        for (var p = 0u; p < PIECES; p++) {
            for (var d = 0u; d < DEPTH; d++) {
                let at = (min(first_row + d, last_row) * params.pieces + min(first + p, last_piece)) * 2u;
                v[p][d] = Eight(x[at], x[at + 1u]);
            }
        }
        for (var b = 0u; b < BLOCKS; b++) {
            // Outputs and pieces past the end repeat the last one: their sums are thrown away. Rows count as zeros.
            let column = params.first_out + min((block + b) * LANES + lane, last_out);
            var g: array<f32, DEPTH>;
            for (var d = 0u; d < DEPTH; d++) {
                let value = dy[min(first_row + d, last_row) * params.stride + column];
                g[d] = select(0.0, value, first_row + d <= last_row);
            }
            for (var p = 0u; p < PIECES; p++) {
                for (var d = 0u; d < DEPTH; d++) {
                    sums[b][p].low = fma(vec4(g[d]), v[p][d].low, sums[b][p].low);
                    sums[b][p].high = fma(vec4(g[d]), v[p][d].high, sums[b][p].high);
                }
            }
        }
    }

    for (var b = 0u; b < BLOCKS; b++) {
        for (var p = 0u; p < PIECES; p++) {
            if (block + b) * LANES + lane <= last_out && first + p <= last_piece {
                let at = (((block + b) * params.pieces + first + p) * LANES + lane) * 2u;
                dw[at] += sums[b][p].low;
                dw[at + 1u] += sums[b][p].high;
            }
        }
    }
}
