// The rows that are multiplied.
@group(0) @binding(AT_INPUT) var<storage, read> x: array<vec4<f32>>;    // [rows, depth]

fn first_bound() -> u32 { return 0u; }
