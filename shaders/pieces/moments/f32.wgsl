// Moments in single precision.
@group(0) @binding(AT_FIRST_MOMENT) var<storage, read_write> first: array<vec4<f32>>;
@group(0) @binding(AT_SECOND_MOMENT) var<storage, read_write> second: array<vec4<f32>>;

fn first_moment(at: u32) -> vec4<f32> { return first[at]; }
fn second_moment(at: u32) -> vec4<f32> { return second[at]; }

fn store_moments(at: u32, m: vec4<f32>, v: vec4<f32>) {
    first[at] = m;
    second[at] = v;
}
