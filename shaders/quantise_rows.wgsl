// Rows of x as integers, for matmul_integer: each block of 32 values in steps of its own size, rounded to nearest,
//   step = largest magnitude / STEPS,  q = round(x / step),  so that |x - q * step| <= step / 2 but for rounding.
// With PLANES 2, STEPS is 127 * 256 + 127 and q = 256 * high + low, two signed bytes; with PLANES 1 it is 127 and q one byte.
// Where they lie is told in planes/.
//
// Constants: PLANES; X_ROWS rows that y has room for; LANES.
// Dispatch: x over blocks in workgroups of LANES, y over rows.
struct QuantiseRowsParams { blocks: u32 }                                 // of a row
@group(0) @binding(0) var<uniform> params: QuantiseRowsParams;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;             // [rows, width]
@group(0) @binding(2) var<storage, read_write> y: array<vec4<u32>>;       // [blocks, X_ROWS, X_VECTORS]

const STEPS: f32 = select(127.0, 32639.0, PLANES == 2u);
// Blocks of nothing larger are zeros: what they add to a product is lost in rounding, and their step might be as small as
// shaders take for 0.
const SMALLEST: f32 = 1.0e-30;

// Four signed bytes as a word.
fn word(bytes: vec4<i32>) -> u32 {
    let b = vec4<u32>(bytes) & vec4(255u);
    return b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
}

@compute @workgroup_size(LANES)
fn quantise_rows(@builtin(global_invocation_id) at: vec3<u32>) {
    let block = at.x;
    let row = at.y;
    if block >= params.blocks { return; }
    let source = (row * params.blocks + block) * 8u;
    var largest = vec4(0.0);
    for (var i = 0u; i < 8u; i++) { largest = max(largest, abs(x[source + i])); }
    let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
    let step = select(most / STEPS, 0.0, most < SMALLEST);
    let inverse = select(STEPS / most, 0.0, most < SMALLEST);

    var high: array<u32, 8>;
    var low: array<u32, 8>;
    var sums = vec2(0);
    for (var piece = 0u; piece < 4u; piece++) {
        let a = clamp(round(x[source + 2u * piece] * inverse), vec4(-STEPS), vec4(STEPS));
        let b = clamp(round(x[source + 2u * piece + 1u] * inverse), vec4(-STEPS), vec4(STEPS));
        let even = vec4<i32>(vec4(a.x, a.z, b.x, b.z));
        let odd = vec4<i32>(vec4(a.y, a.w, b.y, b.w));
        let both = even + odd;
        sums[piece / 2u] += (both.x + both.y) + (both.z + both.w);
        if PLANES == 2u {
            let high_even = (even + 128) >> vec4(8u);
            let high_odd = (odd + 128) >> vec4(8u);
            high[2u * piece] = word(high_even);
            high[2u * piece + 1u] = word(high_odd);
            low[2u * piece] = word(even - 256 * high_even);
            low[2u * piece + 1u] = word(odd - 256 * high_odd);
        } else {
            high[2u * piece] = word(even);
            high[2u * piece + 1u] = word(odd);
        }
    }
    let out = (block * X_ROWS + row) * (2u * PLANES + 1u);
    y[out] = vec4(high[0], high[1], high[2], high[3]);
    y[out + 1u] = vec4(high[4], high[5], high[6], high[7]);
    if PLANES == 2u {
        y[out + 2u] = vec4(low[0], low[1], low[2], low[3]);
        y[out + 3u] = vec4(low[4], low[5], low[6], low[7]);
    }
    let total = f32(sums.x + sums.y) * step;
    y[out + 2u * PLANES] = vec4(bitcast<u32>(step), bitcast<u32>(sums.x), bitcast<u32>(sums.y), bitcast<u32>(total));
}
