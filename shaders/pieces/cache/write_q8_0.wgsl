// 8-bit cache, for writing: d = max |x| / 127 over a block, q = x / d rounded to the nearest, ties to even. Each invocation
// finds the largest of the blocks that its eights lie in anew, so that nothing depends on the rows and lanes beside it.
@group(0) @binding(AT_WRITTEN_KEYS) var<storage, read_write> keys: array<u32>;
@group(0) @binding(AT_WRITTEN_VALUES) var<storage, read_write> values: array<u32>;

const EIGHTS: u32 = BLOCK / 8u;
const SMALLEST: f32 = 1.0e-30;  // a block below this is 0: 127 / max |x| must be finite

fn largest_of(v: Eight) -> f32 {
    let m = max(abs(v.low), abs(v.high));
    return max(max(m.x, m.y), max(m.z, m.w));
}

// 1 / d.
fn inverse_of(largest: f32) -> f32 {
    if largest < SMALLEST { return 0.0; }
    return 127.0 / largest;
}

fn scale_of(largest: f32) -> u32 { return bitcast<u32>(select(largest * (1.0 / 127.0), 0.0, largest < SMALLEST)); }

fn quantised(v: vec4<f32>, inverse: f32) -> u32 {
    return pack4xI8(vec4<i32>(clamp(round(v * inverse), vec4(-127.0), vec4(127.0))));
}

fn write_key8(place: u32, piece: u32, v: Eight, whole: Turned) {
    let first = piece - piece % EIGHTS;
    var largest = 0.0;
    for (var i = 0u; i < EIGHTS; i++) { largest = max(largest, largest_of(turned8(whole, first + i))); }
    let inverse = inverse_of(largest);
    keys[key_word(place, 2u * piece)] = quantised(v.low, inverse);
    keys[key_word(place, 2u * piece + 1u)] = quantised(v.high, inverse);
    if piece == first { keys[key_word(place, scale_word(piece))] = scale_of(largest); }
}

fn write_value8(place: u32, piece: u32, v: Eight, first_of_head: u32) {
    let first = piece - piece % EIGHTS;
    var largest = 0.0;
    for (var i = 0u; i < EIGHTS; i++) { largest = max(largest, largest_of(plain8(first_of_head, first + i))); }
    let inverse = inverse_of(largest);
    values[value_word(place, 2u * piece)] = quantised(v.low, inverse);
    values[value_word(place, 2u * piece + 1u)] = quantised(v.high, inverse);
    if piece == first { values[value_word(place, scale_word(piece))] = scale_of(largest); }
}
