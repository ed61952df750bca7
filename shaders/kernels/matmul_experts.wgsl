// Rows times the weights of their experts: y[p, o] = sum over d of x[p / READERS, d] * w[e, o, d] for each pair p of a row and
// an expert e, as shared/row_products.wgsl says. A workgroup takes a group of pairs of one expert (expert_groups.wgsl), which
// share each load of its weights. An expert's weights begin at a whole number of blocks.
//
// Constants: those of shared/row_products.wgsl, ROWS pairs of a group; READERS pairs that read one row of x.
// Dispatch: x over groups, so that those of one expert, which read the same weights, run together; y and z over BLOCKS * LANES
// weight rows of an expert.
struct ExpertParams {
    pieces: u32,        // depth / 8
    rows_out: u32,      // outputs of an expert
    first_out: u32,     // 0
    stride: u32,        // width of y
    blocks: u32,        // blocks of LANES weight rows of an expert
    first: u32,         // the first expert of this part of the weights
    experts: u32,       // experts of this part
}
@group(0) @binding(0) var<uniform> params: ExpertParams;
@group(0) @binding(1) var<storage, read> groups: array<ExpertGroup>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;               // [pairs, stride]
@group(0) @binding(5) var<storage, read> order: array<u32>;                 // [pairs]

var<private> inputs: array<u32, ROWS>;      // where the row of x of each pair begins

@compute @workgroup_size(LANES, SLICES)
fn matmul_experts(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let slice = slice_of(local.y);
    let pairs = groups[group.x];
    // Experts before the first are beyond the last one, too.
    let expert = pairs.expert - params.first;
    let block = (group.y + group.z * workgroups.y) * BLOCKS;
    if pairs.count == 0u || expert >= params.experts || block / PAIR * LANES >= params.rows_out { return; }
    // Pairs past the end repeat the last one: their sums are thrown away.
    var starts: array<u32, ROWS>;
    for (var m = 0u; m < ROWS; m++) {
        starts[m] = order[pairs.first + min(m, pairs.count - 1u)] / READERS * params.pieces;
    }
    inputs = starts;
    multiply(RowTurn(pairs.first, pairs.count, expert * params.blocks), block, local.x, slice);
}

fn input_start(turn: RowTurn, m: u32) -> u32 { return inputs[m]; }

fn output_row(turn: RowTurn, m: u32) -> u32 { return order[turn.first + m]; }
