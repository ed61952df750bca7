// Many rows times a matrix, for the prompt: y[m, o] = sum over d of x[m, d] * w[o, d].
// Each invocation holds ROWS x BLOCKS sums in registers. The lanes of a subgroup share a row of x and read neighbouring
// weight rows; the TILES invocations above one another share the weights through the cache.
// A sum has one order whatever the rows, so the result does not depend on how a prompt is cut into chunks.
//
// Constants: ROWS rows of x per invocation; BLOCKS weight rows per lane; LANES, RUN, PAIR and AHEAD as in matmul_rows;
// TILES row groups per workgroup.
// Dispatch: x and y over weight rows as in matmul_rows; z over ROWS * TILES rows of x.

@compute @workgroup_size(LANES, TILES)
fn matmul_tile(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let lane = local.x;
    let block = (group.x + group.y * groups.x) * BLOCKS;
    let first = (group.z * TILES + local.y) * ROWS;
    if block / PAIR * LANES >= params.rows_out || first >= step.rows { return; }
    let last = step.rows - 1u;

    var starts: array<u32, BLOCKS>;
    for (var b = 0u; b < BLOCKS; b++) { starts[b] = row_start(block + b, params.pieces); }

    var seen = 0u;
    var sums: array<array<f32, BLOCKS>, ROWS>;
    for (var run = 0u; run < params.pieces / RUN; run++) {
        if AHEAD != 0u && run + 1u < params.pieces / RUN {
            for (var b = 0u; b < BLOCKS; b++) { seen |= read_ahead(block + b, run + 1u, lane); }
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
                // Rows past the end repeat the last one: their sums are thrown away.
                let at = (min(first + m, last) * params.pieces + piece) * 2u;
                let v = Eight(x[at], x[at + 1u]);
                for (var b = 0u; b < BLOCKS; b++) {
                    sums[m][b] = dot_add(w[b], v, sums[m][b]);
                }
            }
        }
    }

    keep(seen);
    for (var m = 0u; m < ROWS; m++) {
        for (var b = 0u; b < BLOCKS; b += PAIR) {
            let row = (block + b) / PAIR * LANES + lane;
            if first + m <= last && row < params.rows_out {
                let out = params.first_out + row;
                finish((first + m) * params.stride + out, out, sums[m][b], sums[m][b + PAIR - 1u]);
            }
        }
    }
}
