// Few rows times a matrix: y[m, o] = sum over d of x[m, d] * w[o, d], for ROWS rows at once, as shared/row_products.wgsl
// says.
//
// Constants: those of shared/row_products.wgsl; OUTPUT_ROWS 1 if rows are `outputs`.
// Dispatch: x over turns of ROWS rows of x, so that turns which read the same weights run together; y and z over groups
// of BLOCKS * LANES weight rows.

@compute @workgroup_size(LANES, SLICES)
fn matmul_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let slice = slice_of(local.y);
    let block = (group.y + group.z * groups.y) * BLOCKS;
    if block / PAIR * LANES >= params.rows_out { return; }
    multiply(turn_of(first_bound() / ROWS + group.x), block, local.x, slice);
}

fn input_start(turn: RowTurn, m: u32) -> u32 { return (turn.first - first_bound() + m) * params.pieces; }
