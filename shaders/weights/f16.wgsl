// F16 weights.
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;

fn weight8(index: u32) -> Eight {
    let w = weights[index];
    return Eight(vec4(unpack2x16float(w.x), unpack2x16float(w.y)), vec4(unpack2x16float(w.z), unpack2x16float(w.w)));
}
