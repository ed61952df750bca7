// Half-precision cache, for writing. Values beyond f16's range are clamped: packing them would be undefined.
@group(0) @binding(AT_WRITTEN_KEYS) var<storage, read_write> keys: array<vec4<u32>>;    // pieces of 8
@group(0) @binding(AT_WRITTEN_VALUES) var<storage, read_write> values: array<vec4<u32>>;  // pieces of 8

fn pack(v: Eight) -> vec4<u32> {
    let low = clamp(v.low, vec4(-65504.0), vec4(65504.0));
    let high = clamp(v.high, vec4(-65504.0), vec4(65504.0));
    return vec4(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw));
}
fn write_key8(place: u32, piece: u32, v: Eight, whole: Turned) { keys[key_index(place, piece)] = pack(v); }
fn write_value8(place: u32, piece: u32, v: Eight, first: u32) { values[place * (HEAD_DIM / 8u) + piece] = pack(v); }
