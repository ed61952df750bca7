// Single-precision cache, for writing.
@group(0) @binding(AT_WRITTEN_KEYS) var<storage, read_write> keys: array<vec4<f32>>;    // pieces of 4
@group(0) @binding(AT_WRITTEN_VALUES) var<storage, read_write> values: array<vec4<f32>>;  // pieces of 4

fn write_key8(place: u32, piece: u32, v: Eight, whole: Turned) {
    let index = 2u * key_index(place, piece);
    keys[index] = v.low;
    keys[index + 1u] = v.high;
}
fn write_value8(place: u32, piece: u32, v: Eight, first: u32) {
    let index = place * (HEAD_DIM / 4u) + 2u * piece;
    values[index] = v.low;
    values[index + 1u] = v.high;
}
