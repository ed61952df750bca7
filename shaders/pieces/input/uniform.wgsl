// The rows that are multiplied, as many as a uniform holds: all lanes read the same value at a time, and some drivers read
// it once for all of them only from here. Where there are more rows, each dispatch takes some, a multiple of ROWS.
@group(0) @binding(AT_INPUT) var<uniform> x: array<vec4<f32>, X_PIECES>;    // [rows, depth]

fn first_bound() -> u32 { return params.first_row; }
