// Single-precision cache, for reading.
@group(0) @binding(AT_READ_KEYS) var<storage, read> keys: array<vec4<f32>>;          // pieces of 4
@group(0) @binding(AT_READ_VALUES) var<storage, read> values: array<vec4<f32>>;        // pieces of 4

alias Key8 = Eight;
alias Value4 = vec4<f32>;

fn load_key8(place: u32, piece: u32) -> Key8 {
    let index = 2u * key_index(place, piece);
    return Eight(keys[index], keys[index + 1u]);
}
fn key8(k: Key8) -> Eight { return k; }
fn load_value4(place: u32, chunk: u32) -> Value4 { return values[place * (HEAD_DIM / 4u) + chunk]; }
fn value4(v: Value4) -> vec4<f32> { return v; }

fn read_key8(place: u32, piece: u32) -> Eight { return key8(load_key8(place, piece)); }
fn read_value4(place: u32, chunk: u32) -> vec4<f32> { return value4(load_value4(place, chunk)); }
