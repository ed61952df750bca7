// Half-precision cache, for reading.
@group(0) @binding(3) var<storage, read> keys: array<vec4<u32>>;          // pieces of 8
@group(0) @binding(4) var<storage, read> values: array<vec2<u32>>;        // pieces of 4

fn read_key8(index: u32) -> Eight {
    let k = keys[index];
    return Eight(vec4(unpack2x16float(k.x), unpack2x16float(k.y)), vec4(unpack2x16float(k.z), unpack2x16float(k.w)));
}
fn read_value4(index: u32) -> vec4<f32> {
    let v = values[index];
    return vec4(unpack2x16float(v.x), unpack2x16float(v.y));
}
