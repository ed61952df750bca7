// Single-precision cache, for reading.
@group(0) @binding(3) var<storage, read> keys: array<vec4<f32>>;          // pieces of 4
@group(0) @binding(4) var<storage, read> values: array<vec4<f32>>;        // pieces of 4

fn read_key8(index: u32) -> Eight { return Eight(keys[2u * index], keys[2u * index + 1u]); }
fn read_value4(index: u32) -> vec4<f32> { return values[index]; }
