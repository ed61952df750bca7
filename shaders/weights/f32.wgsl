// F32 weights: eight values take two loads.
@group(0) @binding(2) var<storage, read> weights: array<vec4<f32>>;

fn weight8(index: u32) -> Eight {
    return Eight(weights[2u * index], weights[2u * index + 1u]);
}
