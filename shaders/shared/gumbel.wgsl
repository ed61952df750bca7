// Gumbel noise: g = -log(-log(u)), u uniform in (0, 1) (Gumbel 1954). Its bits are a function of three numbers alone.

// pcg3d of Jarzynski & Olano 2020, "Hash Functions for GPU Rendering".
fn hash(at: vec3<u32>) -> u32 {
    var v = at * 1664525u + 1013904223u;
    v.x += v.y * v.z;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v ^= v >> vec3(16u);
    v.x += v.y * v.z;
    return v.x;
}

// -log(1 - v). WGSL promises log near 1 to 2^-21 absolutely only, and there the largest g come from: below 1/8 its series.
fn exponential(v: f32) -> f32 {
    if v >= 0.125 { return -log(1.0 - v); }
    return v * fma(v, fma(v, fma(v, fma(v, fma(v, 1.0 / 6.0, 0.2), 0.25), 1.0 / 3.0), 0.5), 1.0);
}

fn gumbel(id: u32, position: u32, seed: u32) -> f32 {
    let bits = hash(vec3(id, position, seed));
    // In [2^-33, 1 - 2^-23]: finest where g is large.
    let v = min((f32(bits) + 0.5) * 0x1p-32, 0.99999988);
    return -log(exponential(v));
}
