// Half-precision cache, for reading.
@group(0) @binding(3) var<storage, read> keys: array<vec4<u32>>;          // pieces of 8
@group(0) @binding(4) var<storage, read> values: array<vec2<u32>>;        // pieces of 4

fn read_key8(place: u32, piece: u32) -> Eight {
    let k = keys[key_index(place, piece)];
    return Eight(vec4(unpack2x16float(k.x), unpack2x16float(k.y)), vec4(unpack2x16float(k.z), unpack2x16float(k.w)));
}
fn read_value4(place: u32, chunk: u32) -> vec4<f32> {
    let v = values[place * (HEAD_DIM / 4u) + chunk];
    return vec4(unpack2x16float(v.x), unpack2x16float(v.y));
}
