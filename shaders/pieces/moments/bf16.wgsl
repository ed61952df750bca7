// Moments in BF16, the upper half of an f32. Rounded to nearest, a moment whose step changes it by less than half of its
// last place would never change; so it is rounded up as often as the lost part says, by bits that only the place and the
// step's number decide.
@group(0) @binding(AT_FIRST_MOMENT) var<storage, read_write> first: array<vec2<u32>>;
@group(0) @binding(AT_SECOND_MOMENT) var<storage, read_write> second: array<vec2<u32>>;

fn widened(pair: vec2<u32>) -> vec4<f32> {
    let low = bitcast<vec2<f32>>(pair << vec2(16u));
    let high = bitcast<vec2<f32>>(pair & vec2(0xffff0000u));
    return vec4(low.x, high.x, low.y, high.y);
}

fn narrowed(values: vec4<f32>, chance: vec4<u32>) -> vec2<u32> {
    let bits = bitcast<vec4<u32>>(values) + chance;
    return (bits.xz >> vec2(16u)) | (bits.yw & vec2(0xffff0000u));
}

// The mixing function lowbias32, by Chris Wellons.
fn mixed(seed: vec4<u32>) -> vec4<u32> {
    var bits = (seed ^ (seed >> vec4(16u))) * 0x7feb352du;
    bits = (bits ^ (bits >> vec4(15u))) * 0x846ca68bu;
    return bits ^ (bits >> vec4(16u));
}

fn first_moment(at: u32) -> vec4<f32> { return widened(first[at]); }
fn second_moment(at: u32) -> vec4<f32> { return widened(second[at]); }

fn store_moments(at: u32, m: vec4<f32>, v: vec4<f32>) {
    let chances = mixed(mixed(4u * at + vec4(0u, 1u, 2u, 3u)) + step.number);
    first[at] = narrowed(m, chances >> vec4(16u));
    second[at] = narrowed(v, chances & vec4(0xffffu));
}
