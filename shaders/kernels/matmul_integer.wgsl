// Few rows times quantised weights by integer dot products: y[m, o] = sum over d of x[m, d] * w[o, d], for ROWS rows at
// once. x comes quantised (quantise_rows.wgsl): per block of 32 values a step, and each value as 256 * high + low in steps,
// two signed bytes. For a block of 32 weights, w = d * q (+ m), the integers sum((256 * high + low) * q) are exact, in any
// order; only what is left, a multiply-add for each block, rounds, in one order for every ROWS and BLOCKS.
// The largest magnitude of a block's integer sum is 32 * 32639 * 128 = 1.34e8 (Q8_0), so that it never overflows.
//
// Lanes, slices and pairs are those of matmul_rows.wgsl: a lane owns whole weight rows, a slice takes every SLICES-th run of
// RUN blocks, and the slices' sums are added in order.
//
// Constants: ROWS rows of x, a bound; BLOCKS weight rows per lane, a multiple of PAIR; LANES; SLICES; PAIR; OUTPUT_ROWS 1 if
// rows are `outputs`; AHEAD 1 if the next run is asked for before this one is multiplied; X_ROWS rows that x has room for;
// TAIL (shared/slice_sums.wgsl).
// Dispatch: x over turns of ROWS rows of x; y and z over groups of BLOCKS * LANES weight rows.
@group(0) @binding(3) var<storage, read> x: array<vec4<u32>>;    // [blocks, X_ROWS, X_VECTORS]

@compute @workgroup_size(LANES, SLICES)
fn matmul_integer(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let lane = local.x;
    let slice = slice_of(local.y);
    let block = (group.y + group.z * groups.y) * BLOCKS;
    if block / PAIR * LANES >= params.rows_out { return; }
    let turn = turn_of(group.x);
    let runs = (params.pieces / 4u + RUN - 1u) / RUN;

    var starts: array<u32, BLOCKS>;
    var next: array<Run, BLOCKS>;
    for (var b = 0u; b < BLOCKS; b++) {
        starts[b] = row_start(block + b, params.pieces);
        if AHEAD != 0u { next[b] = read_run(starts[b], min(slice, runs - 1u), lane); }
    }
    var sums: array<array<f32, BLOCKS>, ROWS>;
    for (var run = slice; run < runs; run += SLICES) {
        var now = next;
        for (var b = 0u; b < BLOCKS; b++) {
            if AHEAD != 0u {
                next[b] = read_run(starts[b], min(run + SLICES, runs - 1u), lane);
            } else {
                now[b] = read_run(starts[b], run, lane);
            }
        }
        var scales: array<Scales, BLOCKS>;
        for (var b = 0u; b < BLOCKS; b++) { scales[b] = scales_of(now[b], run); }
        for (var i = 0u; i < RUN; i++) {
            var w: array<Operands, BLOCKS>;
            for (var b = 0u; b < BLOCKS; b++) { w[b] = operands(now[b], i); }
            let at = ((run * RUN + i) * X_ROWS + turn.first) * X_VECTORS;
            for (var m = 0u; m < ROWS; m++) {
                let v = rounded(at + m * X_VECTORS);
                for (var b = 0u; b < BLOCKS; b++) { sums[m][b] = add_block(w[b], v, scales[b], i, sums[m][b]); }
            }
        }
    }

    finish_sums(sums, turn, block, lane, slice);
}
