// Few rows times a matrix: y[m, o] = sum over d of x[m, d] * w[o, d], for ROWS rows at once.
// Each weight is read once for all rows. A lane owns whole weight rows, so nothing is summed across lanes and the order
// of a sum is the same for every ROWS and BLOCKS; only SLICES cuts it, and the slices are added in order.
// Weights lie interleaved (see engine/ops/matrix.rs): piece p (8 values) of LANES neighbouring weight rows is contiguous,
// or word p where they are quantised. A slice takes every SLICES-th run of RUN pieces, whose loads can be in flight
// together; SHARE of them share a scale.
// With PAIR 2 an output takes two sums, of weight rows that lie LANES apart (gate and up).
//
// Constants: ROWS rows of x, a bound; BLOCKS weight rows per lane, a multiple of PAIR; LANES; SLICES; RUN, a divisor of
// the pieces; PAIR; OUTPUT_ROWS 1 if rows are `outputs`; AHEAD 1 if the next run is asked for in time (shared/ahead.wgsl);
// HELD pieces, a divisor of RUN, of every weight row that a lane holds in registers while the HELD before them are
// multiplied; 0 if pieces are loaded when they are needed. TAIL sums that are gathered at a time, a multiple of PAIR.
// Dispatch: x over turns of ROWS rows of x, so that turns which read the same weights run together; y and z over groups
// of BLOCKS * LANES weight rows.

const SUMS: u32 = ROWS * BLOCKS;
const STEP: u32 = max(HELD, 1u);                       // pieces between two loads
var<workgroup> gathered: array<f32, TAIL * SLICES * LANES>;

// Continuation of a slice after the STEP pieces from `piece` on: the next ones of the run, or the slice's next run; the
// same again at the end.
fn piece_after(piece: u32) -> u32 {
    let next = piece + STEP;
    if next % RUN != 0u { return next; }
    let over = next + (SLICES - 1u) * RUN;
    return select(piece, over, over < params.pieces);
}

@compute @workgroup_size(LANES, SLICES)
fn matmul_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let lane = local.x;
    let slice = slice_of(local.y);
    let block = (group.y + group.z * groups.y) * BLOCKS;
    if block / PAIR * LANES >= params.rows_out { return; }
    var rows = step.rows;
    if OUTPUT_ROWS != 0u { rows = step.outputs; }
    let first = group.x * ROWS;

    var starts: array<u32, BLOCKS>;
    for (var b = 0u; b < BLOCKS; b++) { starts[b] = row_start(block + b, params.pieces); }

    var seen = 0u;
    var sums: array<array<f32, BLOCKS>, ROWS>;
    var next: array<array<Raw, BLOCKS>, STEP>;
    if HELD != 0u {
        let piece = min(slice * RUN, params.pieces - RUN);
        for (var j = 0u; j < STEP; j++) {
            for (var b = 0u; b < BLOCKS; b++) { next[j][b] = raw8(starts[b], piece + j, lane); }
        }
    }
    for (var run = slice; run < params.pieces / RUN; run += SLICES) {
        if AHEAD != 0u && run + SLICES < params.pieces / RUN {
            for (var b = 0u; b < BLOCKS; b++) { seen |= read_ahead(block + b, run + SLICES, lane); }
        }
        var scales: array<Scale, BLOCKS>;
        for (var i = 0u; i < RUN; i += STEP) {
            let piece = run * RUN + i;
            var now: array<array<Raw, BLOCKS>, STEP>;
            if HELD != 0u {
                now = next;
                let after = piece_after(piece);
                for (var j = 0u; j < STEP; j++) {
                    for (var b = 0u; b < BLOCKS; b++) { next[j][b] = raw8(starts[b], after + j, lane); }
                }
            } else {
                for (var b = 0u; b < BLOCKS; b++) { now[0][b] = raw8(starts[b], piece, lane); }
            }
            for (var j = 0u; j < STEP; j++) {
                if (i + j) % SHARE == 0u {
                    for (var b = 0u; b < BLOCKS; b++) { scales[b] = scale_of(starts[b], (piece + j) / SHARE, lane); }
                }
                var w: array<Eight, BLOCKS>;
                for (var b = 0u; b < BLOCKS; b++) { w[b] = widened(scales[b], now[j][b]); }
                for (var m = 0u; m < ROWS; m++) {
                    let at = ((first + m) * params.pieces + piece + j) * 2u;
                    let v = Eight(x[at], x[at + 1u]);
                    for (var b = 0u; b < BLOCKS; b++) {
                        sums[m][b] = dot_add(w[b], v, sums[m][b]);
                    }
                }
            }
        }
    }

    keep(seen);
    if SLICES == 1u {
        for (var m = 0u; m < ROWS; m++) {
            for (var b = 0u; b < BLOCKS; b += PAIR) {
                let row = (block + b) / PAIR * LANES + lane;
                if first + m < rows && row < params.rows_out {
                    let out = params.first_out + row;
                    finish((first + m) * params.stride + out, out, sums[m][b], sums[m][b + PAIR - 1u]);
                }
            }
        }
        return;
    }
    // The slices' sums are added up TAIL at a time, each by the lanes of one slice, in the order of the slices.
    for (var begin = 0u; begin < SUMS; begin += TAIL) {
        workgroupBarrier();
        for (var i = 0u; i < TAIL; i++) {
            if begin + i < SUMS {
                // At a place that exists in every turn: written out it is a literal, and naga refuses others unreached.
                gathered[(i * SLICES + slice) * LANES + lane] =
                    sums[min(begin + i, SUMS - 1u) / BLOCKS][min(begin + i, SUMS - 1u) % BLOCKS];
            }
        }
        workgroupBarrier();
        for (var i = slice * PAIR; i < min(TAIL, SUMS - begin); i += SLICES * PAIR) {
            let row = (block + (begin + i) % BLOCKS) / PAIR * LANES + lane;
            let m = (begin + i) / BLOCKS;
            if first + m < rows && row < params.rows_out {
                let out = params.first_out + row;
                let sum = total(i, lane);
                var partner = sum;
                if PAIR == 2u { partner = total(i + 1u, lane); }
                finish((first + m) * params.stride + out, out, sum, partner);
            }
        }
    }
}

// Sum `i` of those gathered.
fn total(i: u32, lane: u32) -> f32 {
    var sum = gathered[i * SLICES * LANES + lane];
    for (var s = 1u; s < SLICES; s++) { sum += gathered[(i * SLICES + s) * LANES + lane]; }
    return sum;
}
