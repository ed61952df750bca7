// Blocks of 32 values as integers, for matmul_integer.wgsl. A block has a step of its own, its largest magnitude
// divided by the most that PLANES signed bytes hold: 127 * 257 = 32639 in two (256 * high + low), 127 in one. A value
// is rounded to the nearest step, so that it is off by half a step and the roundings of two divisions: 1/62000 of the
// block's largest in two bytes, 1/250 in one. Blocks whose largest is below 2^-100 are zeros. Words hold every other
// value of eight as 4-bit weights do: even ones, then odd ones.
//
// Needs `integers`, [padded blocks, X_ROWS, 2 * PLANES + 1] vectors, and the constants PLANES, 2 or 1, and X_ROWS.
const MOST: f32 = 127.0 * f32(1u + 256u * (PLANES - 1u));

// Block `block` of row `row`.
fn store_block(values: array<vec4<f32>, 8>, block: u32, row: u32) {
    let at = (block * X_ROWS + row) * (2u * PLANES + 1u);
    var vectors = values;
    var most = vec4(0.0);
    for (var i = 0u; i < 8u; i++) { most = max(most, abs(vectors[i])); }
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
            let vector = half * 4u + piece * 2u;
            let first = rounded(vectors[vector] * steps);
            let second = rounded(vectors[vector + 1u] * steps);
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
        integers[at + half] = high;
        if PLANES == 2u { integers[at + 2u + half] = low; }
        let of_half = sum.x + sum.y + sum.z + sum.w;
        if half == 0u { sums.x = of_half; } else { sums.y = of_half; }
    }
    let total = f32(sums.x + sums.y) * size;
    integers[at + 2u * PLANES] = vec4(bitcast<u32>(size), bitcast<u32>(sums.x), bitcast<u32>(sums.y), bitcast<u32>(total));
}

// The nearest steps. A division that is off by an ulp may lead half a step past the end.
fn rounded(steps: vec4<f32>) -> vec4<i32> { return vec4<i32>(clamp(round(steps), vec4(-MOST), vec4(MOST))); }
