// Eight consecutive values of one row: a 16-byte load of 16-bit values.
struct Eight { low: vec4<f32>, high: vec4<f32> }

// dot(a, b) + sum, in one fixed order, each step rounded once where the device has a fused multiply-add.
fn dot_add(a: Eight, b: Eight, sum: f32) -> f32 {
    var s = fma(a.low.x, b.low.x, sum);
    s = fma(a.low.y, b.low.y, s);
    s = fma(a.low.z, b.low.z, s);
    s = fma(a.low.w, b.low.w, s);
    s = fma(a.high.x, b.high.x, s);
    s = fma(a.high.y, b.high.y, s);
    s = fma(a.high.z, b.high.z, s);
    return fma(a.high.w, b.high.w, s);
}
