// 8-bit cache, for reading.
@group(0) @binding(3) var<storage, read> keys: array<u32>;
@group(0) @binding(4) var<storage, read> values: array<u32>;

fn read_key8(place: u32, piece: u32) -> Eight {
    let scale = bitcast<f32>(keys[key_word(place, scale_word(piece))]);
    let low = vec4<f32>(unpack4xI8(keys[key_word(place, 2u * piece)]));
    let high = vec4<f32>(unpack4xI8(keys[key_word(place, 2u * piece + 1u)]));
    return Eight(low * scale, high * scale);
}
fn read_value4(place: u32, chunk: u32) -> vec4<f32> {
    let scale = bitcast<f32>(values[value_word(place, scale_word(chunk / 2u))]);
    return vec4<f32>(unpack4xI8(values[value_word(place, chunk)])) * scale;
}
