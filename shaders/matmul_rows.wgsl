// Few rows times a matrix: y[m, o] = sum over d of x[m, d] * w[o, d], for ROWS rows at once.
// Each weight is read once for all rows. A lane owns whole weight rows, so nothing is summed across lanes and the order
// of a sum is the same for every ROWS and BLOCKS; only SLICES cuts it, and the slices are added in order.
// Weights lie interleaved (see engine/ops/matrix.rs): piece p (8 values) of LANES neighbouring weight rows is contiguous,
// or word p where they are quantised. A slice takes every SLICES-th run of RUN pieces, whose loads can be in flight
// together; SHARE of them share a scale.
// With PAIR 2 an output takes two sums, of weight rows that lie LANES apart (gate and up).
//
// Constants: ROWS rows of x, a bound; BLOCKS weight rows per lane, a multiple of PAIR; LANES; SLICES; RUN, a divisor of
// the pieces; PAIR; OUTPUT_ROWS 1 if rows are `outputs`; AHEAD 1 if the next run is asked for in time (shared/ahead.wgsl).
// Dispatch: one workgroup for every BLOCKS * LANES weight rows, in x and y; z over ROWS rows of x.

var<workgroup> gathered: array<f32, SLICES * LANES>;

@compute @workgroup_size(LANES, SLICES)
fn matmul_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let lane = local.x;
    let block = (group.x + group.y * groups.x) * BLOCKS;
    if block / PAIR * LANES >= params.rows_out { return; }
    var rows = step.rows;
    if OUTPUT_ROWS != 0u { rows = step.outputs; }
    let first = group.z * ROWS;

    var starts: array<u32, BLOCKS>;
    for (var b = 0u; b < BLOCKS; b++) { starts[b] = row_start(block + b, params.pieces); }

    var seen = 0u;
    var sums: array<array<f32, BLOCKS>, ROWS>;
    for (var run = local.y; run < params.pieces / RUN; run += SLICES) {
        if AHEAD != 0u && run + SLICES < params.pieces / RUN {
            for (var b = 0u; b < BLOCKS; b++) { seen |= read_ahead(block + b, run + SLICES, lane); }
        }
        var scales: array<Scale, BLOCKS>;
        for (var i = 0u; i < RUN; i++) {
            let piece = run * RUN + i;
            if i % SHARE == 0u {
                for (var b = 0u; b < BLOCKS; b++) { scales[b] = scale_of(starts[b], piece / SHARE, lane); }
            }
            var w: array<Eight, BLOCKS>;
            for (var b = 0u; b < BLOCKS; b++) {
                w[b] = weight8(scales[b], starts[b], piece, lane);
            }
            for (var m = 0u; m < ROWS; m++) {
                let at = ((first + m) * params.pieces + piece) * 2u;
                let v = Eight(x[at], x[at + 1u]);
                for (var b = 0u; b < BLOCKS; b++) {
                    sums[m][b] = dot_add(w[b], v, sums[m][b]);
                }
            }
        }
    }

    keep(seen);
    for (var m = 0u; m < ROWS; m++) {
        if SLICES > 1u {
            for (var b = 0u; b < BLOCKS; b++) {
                workgroupBarrier();
                gathered[local.y * LANES + lane] = sums[m][b];
                workgroupBarrier();
                var sum = gathered[lane];
                for (var s = 1u; s < SLICES; s++) { sum += gathered[s * LANES + lane]; }
                sums[m][b] = sum;
            }
        }
        for (var b = 0u; b < BLOCKS; b += PAIR) {
            let row = (block + b) / PAIR * LANES + lane;
            if local.y == 0u && first + m < rows && row < params.rows_out {
                let out = params.first_out + row;
                finish((first + m) * params.stride + out, out, sums[m][b], sums[m][b + PAIR - 1u]);
            }
        }
    }
}
