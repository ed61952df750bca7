// The end of a product whose dot products are cut into SLICES: the slices' sums are added up in their order and finished.
//
// Constants: ROWS, BLOCKS, LANES, SLICES and PAIR as in matmul_rows.wgsl; TAIL sums that are gathered at a time, a multiple
// of PAIR.

// Rows that a workgroup takes: those from `first` on, as far as `count` goes, by the weights from block `start` on. The
// kernel has output_row, the row of y that belongs to row `m` of them.
struct RowTurn { first: u32, count: u32, start: u32 }

const SUMS: u32 = ROWS * BLOCKS;
var<workgroup> gathered: array<f32, TAIL * SLICES * LANES>;

// Stores a lane's sums, by row and block, of the weight rows from `block` on.
fn finish_sums(of_lane: array<array<f32, BLOCKS>, ROWS>, turn: RowTurn, block: u32, lane: u32, slice: u32) {
    var sums: array<array<f32, BLOCKS>, ROWS> = of_lane;
    if SLICES == 1u {
        for (var m = 0u; m < ROWS; m++) {
            for (var b = 0u; b < BLOCKS; b += PAIR) {
                finish_at(turn, m, (block + b) / PAIR * LANES + lane, sums[m][b], sums[m][b + PAIR - 1u]);
            }
        }
        return;
    }
    // TAIL at a time, each by the lanes of one slice.
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
            let sum = added_up(i, lane);
            var partner = sum;
            if PAIR == 2u { partner = added_up(i + 1u, lane); }
            finish_at(turn, (begin + i) / BLOCKS, (block + (begin + i) % BLOCKS) / PAIR * LANES + lane, sum, partner);
        }
    }
}

fn finish_at(turn: RowTurn, m: u32, row: u32, sum: f32, partner: f32) {
    if m < turn.count && row < params.rows_out {
        let out = params.first_out + row;
        finish(output_row(turn, m) * params.stride + out, out, sum, partner);
    }
}

// Sum `i` of those gathered.
fn added_up(i: u32, lane: u32) -> f32 {
    var sum = gathered[i * SLICES * LANES + lane];
    for (var s = 1u; s < SLICES; s++) { sum += gathered[(i * SLICES + s) * LANES + lane]; }
    return sum;
}
