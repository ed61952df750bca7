// The gradient of a product by its input: dx[m, c] = sum over o of dy[m, o] * w[o, c].
// Each invocation holds ROWS x 8 sums in registers; its neighbours take the neighbouring columns of the same rows.
// A sum goes through the outputs in order, from the part before on, so that neither rows nor parts change its bits.
//
// Constants: ROWS of dy per invocation; THREADS per workgroup; LANES of the weights; OUTPUT_ROWS 1 if the rows are the
// step's outputs.
// Dispatch: x over THREADS * 8 columns of dx, y over ROWS rows.
struct InputGradientParams {
    pieces: u32,     // width of dx / 8
    rows_out: u32,   // outputs of this part of the matrix
    first_out: u32,  // the part's first output
    stride: u32,     // width of dy
    add: u32,        // 1: to what dx holds
}
@group(0) @binding(0) var<uniform> params: InputGradientParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(3) var<storage, read> dy: array<f32>;               // [rows, stride]
@group(0) @binding(4) var<storage, read_write> dx: array<vec4<f32>>;   // [rows, 8 * pieces]

// Outputs read at a time: they divide what the rows of a matrix are padded to, with zeros.
const DEPTH: u32 = 4u;

@compute @workgroup_size(THREADS)
fn input_gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let piece = group.x * THREADS + thread;
    let first = group.y * ROWS;
    let rows = select(step.rows, step.outputs, OUTPUT_ROWS != 0u);
    if piece >= params.pieces || first >= rows { return; }
    let last = rows - 1u;
    let last_out = params.rows_out - 1u;

    var sums: array<Eight, ROWS>;
    if params.add != 0u {
        for (var m = 0u; m < ROWS; m++) {
            let at = (min(first + m, last) * params.pieces + piece) * 2u;
            sums[m] = Eight(dx[at], dx[at + 1u]);
        }
    }
    for (var out = 0u; out < params.rows_out; out += DEPTH) {
        var w: array<Eight, DEPTH>;
        for (var d = 0u; d < DEPTH; d++) {
            w[d] = weight8_of(out + d, piece, params.pieces);
        }
        for (var m = 0u; m < ROWS; m++) {
            // Rows past the end repeat the last one: their sums are thrown away.
            let at = min(first + m, last) * params.stride + params.first_out;
            for (var d = 0u; d < DEPTH; d++) {
                let g = vec4(dy[at + min(out + d, last_out)]);
                sums[m].low = fma(g, w[d].low, sums[m].low);
                sums[m].high = fma(g, w[d].high, sums[m].high);
            }
        }
    }

    for (var m = 0u; m < ROWS; m++) {
        if first + m <= last {
            let at = ((first + m) * params.pieces + piece) * 2u;
            dx[at] = sums[m].low;
            dx[at + 1u] = sums[m].high;
        }
    }
}
