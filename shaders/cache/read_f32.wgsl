// Single-precision cache, for reading.
@group(0) @binding(3) var<storage, read> keys: array<vec4<f32>>;          // pieces of 4
@group(0) @binding(4) var<storage, read> values: array<vec4<f32>>;        // pieces of 4

fn read_key8(place: u32, piece: u32) -> Eight {
    let index = 2u * key_index(place, piece);
    return Eight(keys[index], keys[index + 1u]);
}
fn read_value4(place: u32, chunk: u32) -> vec4<f32> { return values[place * (HEAD_DIM / 4u) + chunk]; }
