// The sum of each column, a bias's gradient: sums[o] += sum over m of dy[m, o].
// The SLICES invocations of a column take rows in turns; their sums are added in order.
//
// Constants: COLUMNS and SLICES of a workgroup.
// Dispatch: x over COLUMNS columns.
struct ColumnSumParams { width: u32 }
@group(0) @binding(0) var<uniform> params: ColumnSumParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> dy: array<f32>;             // [rows, width]
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;     // [width]

var<workgroup> gathered: array<array<f32, COLUMNS>, SLICES>;

@compute @workgroup_size(COLUMNS, SLICES)
fn column_sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let column = group.x * COLUMNS + local.x;
    var sum = 0.0;
    if column < params.width {
        for (var m = local.y; m < step.rows; m += SLICES) {
            sum += dy[m * params.width + column];
        }
    }
    gathered[local.y][local.x] = sum;
    workgroupBarrier();
    if local.y == 0u && column < params.width {
        for (var slice = 1u; slice < SLICES; slice++) {
            sum += gathered[slice][local.x];
        }
        sums[column] += sum;
    }
}
