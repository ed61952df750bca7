// Rows times the weights of their experts: y[p, o] = sum over d of x[p / READERS, d] * w[e, o, d] for each pair p of a row and
// an expert e. A workgroup takes a group of pairs of one expert (expert_groups.wgsl), which share each load of its weights.
// A sum has one order, whatever ROWS, BLOCKS and the other pairs are. Weights, lanes, slices and pairs of weight rows are
// those of matmul_rows.wgsl; an expert's weights begin at a whole number of blocks.
//
// Constants: ROWS pairs of a group; BLOCKS weight rows per lane, a multiple of PAIR; LANES; SLICES; RUN, a divisor of the
// pieces; PAIR; AHEAD 1 if the next run is asked for in time (shared/ahead.wgsl); TAIL sums that are gathered at a time, a
// multiple of PAIR; READERS pairs that read one row of x.
// Dispatch: x over groups, so that those of one expert, which read the same weights, run together; y and z over BLOCKS * LANES
// weight rows of an expert.
struct ExpertParams {
    pieces: u32,        // depth / 8
    rows_out: u32,      // outputs of an expert
    stride: u32,        // width of y
    blocks: u32,        // blocks of LANES weight rows of an expert
    first: u32,         // the first expert of this part of the weights
    experts: u32,       // experts of this part
}
@group(0) @binding(0) var<uniform> params: ExpertParams;
@group(0) @binding(1) var<storage, read> groups: array<ExpertGroup>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;               // [pairs, stride]
@group(0) @binding(5) var<storage, read> order: array<u32>;                 // [pairs]

const SUMS: u32 = ROWS * BLOCKS;
var<workgroup> gathered: array<f32, TAIL * SLICES * LANES>;

@compute @workgroup_size(LANES, SLICES)
fn matmul_experts(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let lane = local.x;
    let slice = slice_of(local.y);
    let pairs = groups[group.x];
    // Experts before the first are beyond the last one, too.
    let expert = pairs.expert - params.first;
    let block = (group.y + group.z * workgroups.y) * BLOCKS;
    if pairs.count == 0u || expert >= params.experts || block / PAIR * LANES >= params.rows_out { return; }
    let begin = expert * params.blocks + block;

    var starts: array<u32, BLOCKS>;
    for (var b = 0u; b < BLOCKS; b++) { starts[b] = row_start(begin + b, params.pieces); }
    // Pairs past the end repeat the last one: their sums are thrown away.
    var inputs: array<u32, ROWS>;
    for (var m = 0u; m < ROWS; m++) {
        inputs[m] = order[pairs.first + min(m, pairs.count - 1u)] / READERS * params.pieces;
    }

    var seen = 0u;
    var sums: array<array<f32, BLOCKS>, ROWS>;
    for (var run = slice; run < params.pieces / RUN; run += SLICES) {
        if AHEAD != 0u && run + SLICES < params.pieces / RUN {
            for (var b = 0u; b < BLOCKS; b++) { seen |= read_ahead(begin + b, run + SLICES, lane); }
        }
        var scales: array<Scale, BLOCKS>;
        for (var i = 0u; i < RUN; i++) {
            let piece = run * RUN + i;
            if i % SHARE == 0u {
                for (var b = 0u; b < BLOCKS; b++) { scales[b] = scale_of(starts[b], piece / SHARE, lane); }
            }
            var w: array<Eight, BLOCKS>;
            for (var b = 0u; b < BLOCKS; b++) { w[b] = weight8(scales[b], starts[b], piece, lane); }
            for (var m = 0u; m < ROWS; m++) {
                let at = (inputs[m] + piece) * 2u;
                let v = Eight(x[at], x[at + 1u]);
                for (var b = 0u; b < BLOCKS; b++) { sums[m][b] = dot_add(w[b], v, sums[m][b]); }
            }
        }
    }

    keep(seen);
    // The slices' sums are added up TAIL at a time, each by the lanes of one slice, in the order of the slices.
    for (var base = 0u; base < SUMS; base += TAIL) {
        workgroupBarrier();
        for (var i = 0u; i < TAIL; i++) {
            if base + i < SUMS {
                // At a place that exists in every turn: written out it is a literal, and naga refuses others unreached.
                gathered[(i * SLICES + slice) * LANES + lane] =
                    sums[min(base + i, SUMS - 1u) / BLOCKS][min(base + i, SUMS - 1u) % BLOCKS];
            }
        }
        workgroupBarrier();
        for (var i = slice * PAIR; i < min(TAIL, SUMS - base); i += SLICES * PAIR) {
            let out = (block + (base + i) % BLOCKS) / PAIR * LANES + lane;
            let m = (base + i) / BLOCKS;
            if m < pairs.count && out < params.rows_out {
                let sum = added_up(i, lane);
                var partner = sum;
                if PAIR == 2u { partner = added_up(i + 1u, lane); }
                finish(order[pairs.first + m] * params.stride + out, out, sum, partner);
            }
        }
    }
}

// Sum `i` of those gathered.
fn added_up(i: u32, lane: u32) -> f32 {
    var sum = gathered[i * SLICES * LANES + lane];
    for (var s = 1u; s < SLICES; s++) { sum += gathered[(i * SLICES + s) * LANES + lane]; }
    return sum;
}
