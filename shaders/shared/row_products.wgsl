// Few rows times weights, for ROWS rows at once: the body of matmul_rows.wgsl and matmul_experts.wgsl.
// Each weight is read once for all rows. A lane owns whole weight rows, so nothing is summed across lanes and the order
// of a sum is the same for every ROWS and BLOCKS; only SLICES cuts it, and the slices are added in order.
// Weights lie interleaved (see engine/ops/matrix.rs): piece p (8 values) of LANES neighbouring weight rows is contiguous,
// or word p where they are quantised. A slice takes every SLICES-th run of RUN pieces, whose loads can be in flight
// together; SHARE of them share a scale.
// With PAIR 2 an output takes two sums, of weight rows that lie LANES apart (gate and up).
//
// Constants: ROWS rows of x, a bound; BLOCKS weight rows per lane, a multiple of PAIR; LANES; SLICES; RUN, a divisor of
// the pieces; PAIR; AHEAD 1 if the next run is asked for in time (shared/ahead.wgsl); HELD pieces, a divisor of RUN, of
// every weight row that a lane holds in registers while the HELD before them are multiplied; 0 if pieces are loaded when
// they are needed; TAIL (shared/slice_sums.wgsl).

const STEP: u32 = max(HELD, 1u);                       // pieces between two loads

// Continuation of a slice after the STEP pieces from `piece` on: the next ones of the run, or the slice's next run; the
// same again at the end.
fn piece_after(piece: u32) -> u32 {
    let next = piece + STEP;
    if next % RUN != 0u { return next; }
    let over = next + (SLICES - 1u) * RUN;
    return select(piece, over, over < params.pieces);
}

// The products of a turn's rows by the weight rows from `block` on. The kernel has input_start, the piece of x at which row
// `m` of the turn begins.
fn multiply(turn: RowTurn, block: u32, lane: u32, slice: u32) {
    let begin = turn.start + block;
    var starts: array<u32, BLOCKS>;
    for (var b = 0u; b < BLOCKS; b++) { starts[b] = row_start(begin + b, params.pieces); }

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
            for (var b = 0u; b < BLOCKS; b++) { seen |= read_ahead(begin + b, run + SLICES, lane); }
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
                    let at = (input_start(turn, m) + piece + j) * 2u;
                    let v = Eight(x[at], x[at + 1u]);
                    for (var b = 0u; b < BLOCKS; b++) {
                        sums[m][b] = dot_add(w[b], v, sums[m][b]);
                    }
                }
            }
        }
    }

    keep(seen);
    finish_sums(sums, turn, block, lane, slice);
}
