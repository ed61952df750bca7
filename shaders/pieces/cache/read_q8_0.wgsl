// 8-bit cache, for reading.
@group(0) @binding(AT_READ_KEYS) var<storage, read> keys: array<u32>;
@group(0) @binding(AT_READ_VALUES) var<storage, read> values: array<u32>;

alias Key8 = vec3<u32>;      // two words and their scale
alias Value4 = vec2<u32>;    // a word and its scale

fn load_key8(place: u32, piece: u32) -> Key8 {
    let words = vec2(keys[key_word(place, 2u * piece)], keys[key_word(place, 2u * piece + 1u)]);
    return vec3(words, keys[key_word(place, scale_word(piece))]);
}
fn key8(k: Key8) -> Eight {
    let scale = bitcast<f32>(k.z);
    return Eight(vec4<f32>(unpack4xI8(k.x)) * scale, vec4<f32>(unpack4xI8(k.y)) * scale);
}
fn load_value4(place: u32, chunk: u32) -> Value4 {
    return vec2(values[value_word(place, chunk)], values[value_word(place, scale_word(chunk / 2u))]);
}
fn value4(v: Value4) -> vec4<f32> { return vec4<f32>(unpack4xI8(v.x)) * bitcast<f32>(v.y); }

fn read_key8(place: u32, piece: u32) -> Eight { return key8(load_key8(place, piece)); }
fn read_value4(place: u32, chunk: u32) -> vec4<f32> { return value4(load_value4(place, chunk)); }
