// Single-precision cache, for writing.
@group(0) @binding(4) var<storage, read_write> keys: array<vec4<f32>>;    // pieces of 4
@group(0) @binding(5) var<storage, read_write> values: array<vec4<f32>>;  // pieces of 4

fn write_key8(index: u32, v: Eight) { keys[2u * index] = v.low; keys[2u * index + 1u] = v.high; }
fn write_value8(index: u32, v: Eight) { values[2u * index] = v.low; values[2u * index + 1u] = v.high; }
