// A token is drawn from softmax(logits / temperature): argmax(logit + temperature * g) with g = -log(-log(u)), u uniform
// in (0, 1) (Gumbel 1954; Maddison et al. 2014, arXiv:1411.0030). The bits are a function of the sequence's seed, the
// token's position and its id alone, so that a seed gives the same text whatever runs beside it, and a draft that draws by
// the same noise proposes what its target will draw, as far as their distributions agree.

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

// How a row's token is drawn (draw/).
struct Draw {
    temperature: f32,  // 0: the likeliest token is taken
    seed: u32,         // names the noise
    position: u32,     // of the token that is drawn
}

fn noised(row: u32, index: u32, logit: f32) -> f32 {
    let drawn = draw(row);
    if drawn.temperature == 0.0 { return logit; }
    let bits = hash(vec3(token(index), drawn.position, drawn.seed));
    // In [2^-33, 1 - 2^-23]: finest where g is large.
    let v = min((f32(bits) + 0.5) * 0x1p-32, 0.99999988);
    return fma(drawn.temperature, -log(exponential(v)), logit);
}
