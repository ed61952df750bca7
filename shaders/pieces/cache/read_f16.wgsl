// Half-precision cache, for reading: the loaded words, and their values.
@group(0) @binding(AT_READ_KEYS) var<storage, read> keys: array<vec4<u32>>;          // pieces of 8
@group(0) @binding(AT_READ_VALUES) var<storage, read> values: array<vec2<u32>>;        // pieces of 4

alias Key8 = vec4<u32>;
alias Value4 = vec2<u32>;

fn load_key8(place: u32, piece: u32) -> Key8 { return keys[key_index(place, piece)]; }
fn key8(k: Key8) -> Eight {
    return Eight(vec4(unpack2x16float(k.x), unpack2x16float(k.y)), vec4(unpack2x16float(k.z), unpack2x16float(k.w)));
}
fn load_value4(place: u32, chunk: u32) -> Value4 { return values[place * (HEAD_DIM / 4u) + chunk]; }
fn value4(v: Value4) -> vec4<f32> { return vec4(unpack2x16float(v.x), unpack2x16float(v.y)); }

fn read_key8(place: u32, piece: u32) -> Eight { return key8(load_key8(place, piece)); }
fn read_value4(place: u32, chunk: u32) -> vec4<f32> { return value4(load_value4(place, chunk)); }
