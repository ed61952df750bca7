// Rows of f32 to integers, for matmul_integer.wgsl. Each block of 32 values has a step of its own, its largest magnitude divided
// by the most that PLANES signed bytes hold: 127 * 257 = 32639 in two (256 * high + low), 127 in one. A value is rounded to
// the nearest step, so that it is off by half a step and the roundings of two divisions: 1/62000 of the block's largest in two
// bytes, 1/250 in one. Blocks whose largest is below 2^-100 are zeros.
// Words hold every other value of eight as 4-bit weights do: even ones, then odd ones.
//
// Constants: PLANES bytes of a value, 2 or 1; X_ROWS rows that y has room for.
// Dispatch: x over 64 blocks of a row, y over rows.
struct QuantiseParams {
    blocks: u32,    // of a row of x
    padded: u32,    // of a row of y; the surplus is zeros
}
@group(0) @binding(0) var<uniform> params: QuantiseParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;          // [rows, blocks, 8]
@group(0) @binding(2) var<storage, read_write> y: array<vec4<u32>>;    // [padded, X_ROWS, 2 * PLANES + 1]

const MOST: f32 = 127.0 * f32(1u + 256u * (PLANES - 1u));

@compute @workgroup_size(64)
fn quantise_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = group.x * 64u + lane;
    if block >= params.padded { return; }
    let at = (block * X_ROWS + group.y) * (2u * PLANES + 1u);
    if block >= params.blocks {
        for (var i = 0u; i < 2u * PLANES + 1u; i++) { y[at + i] = vec4(0u); }
        return;
    }
    let from_vector = (group.y * params.blocks + block) * 8u;
    var most = vec4(0.0);
    for (var i = 0u; i < 8u; i++) { most = max(most, abs(x[from_vector + i])); }
    let largest = max(max(most.x, most.y), max(most.z, most.w));
    var size = 0.0;
    var steps = 0.0;
    if largest >= 7.888609e-31 {
        size = largest / MOST;
        steps = MOST / largest;
    }

    var sums = vec2(0);
    for (var half = 0u; half < 2u; half++) {
        var high = vec4(0u);
        var low = vec4(0u);
        var sum = vec4(0);
        for (var piece = 0u; piece < 2u; piece++) {
            let vector = from_vector + half * 4u + piece * 2u;
            let first = rounded(x[vector] * steps);
            let second = rounded(x[vector + 1u] * steps);
            let even = vec4(first.xz, second.xz);
            let odd = vec4(first.yw, second.yw);
            sum += even + odd;
            if PLANES == 2u {
                let upper = vec2(pack4xI8((even + 128) >> vec4(8u)), pack4xI8((odd + 128) >> vec4(8u)));
                let lower = vec2(pack4xI8(even), pack4xI8(odd));
                if piece == 0u { high = vec4(upper, 0u, 0u); low = vec4(lower, 0u, 0u); }
                if piece == 1u { high = vec4(high.xy, upper); low = vec4(low.xy, lower); }
            } else {
                let bytes = vec2(pack4xI8(even), pack4xI8(odd));
                if piece == 0u { high = vec4(bytes, 0u, 0u); }
                if piece == 1u { high = vec4(high.xy, bytes); }
            }
        }
        y[at + half] = high;
        if PLANES == 2u { y[at + 2u + half] = low; }
        let of_half = sum.x + sum.y + sum.z + sum.w;
        if half == 0u { sums.x = of_half; } else { sums.y = of_half; }
    }
    let total = f32(sums.x + sums.y) * size;
    y[at + 2u * PLANES] = vec4(bitcast<u32>(size), bitcast<u32>(sums.x), bitcast<u32>(sums.y), bitcast<u32>(total));
}

// The nearest steps. A division that is off by an ulp may lead half a step past the end.
fn rounded(steps: vec4<f32>) -> vec4<i32> { return vec4<i32>(clamp(round(steps), vec4(-MOST), vec4(MOST))); }
