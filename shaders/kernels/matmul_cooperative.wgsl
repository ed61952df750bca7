enable f16;
enable wgpu_cooperative_matrix;

// Rows times a matrix by the adapter's matrix units: y[m, o] = sum over d of x[m, d] * w[o, d]. The same kernel serves a
// round's rows, 1 to 32, and a prompt's, for any number of rows at the same sums in the same order.
//
// The units multiply f16 and add in f32; three things make that as exact as f32 arithmetic:
// - Range: each row of weights, and each row of x within a chunk of CHUNK columns, is scaled by the power of two that
//   brings its largest value to 2^14. Values that are subnormal in f16 are then below 2^-28 of the largest value, and
//   their rounding below 2^-39: too little to matter even if a unit takes them for zero. Scaling and its undoing are exact.
// - Precision: x is cut in two halves, high = f16(x) and low = f16(x - high), which together keep 22 bits; both are
//   multiplied. BF16 and F16 weights are whole in one half; F32 and quantised weights take two (WEIGHT_HALVES).
// - Sums: a unit may truncate where f32 rounds. It adds up one chunk only; chunks are added in f32, from first to last.
//
// With PAIR 2 an output takes two sums, of weight rows that lie LANES apart (gate and up). A workgroup takes the gates of
// its outputs first, then their ups, so that each half is whole in it whatever LANES and TILE are.
//
// Each workgroup computes ROWS x OUTS sums. It stages PARTS chunks at a time, in f16, in workgroup memory; its subgroups
// share out the tiles. The amount staged at a time, and the assignment of tiles, change no bit.
//
// Constants: ROW_TILES and OUT_TILES, tiles of x rows and of weight rows; CHUNK, PARTS, THREADS, LANES, WEIGHT_HALVES;
// PAIR; OUTPUT_ROWS 1 if rows are `outputs`. TILE is the side of a cooperative matrix.
// Dispatch: x and y over OUTPUTS outputs, z over ROWS rows of x.

@group(0) @binding(6) var<storage, read> scales: array<f32>;     // [weight row], powers of two

const ROWS: u32 = ROW_TILES * TILE;
const OUTS: u32 = OUT_TILES * TILE;
const OUTPUTS: u32 = OUTS / PAIR;
const CHUNK_PIECES: u32 = CHUNK / 8u;
const STAGED_PIECES: u32 = PARTS * CHUNK_PIECES;
// From one staged row to the next: 16 bytes more than a chunk, so that rows lie on different memory banks.
const STRIDE: u32 = CHUNK + 8u;
const X_LEN: u32 = PARTS * ROWS * STRIDE;
const WEIGHTS_LEN: u32 = PARTS * OUTS * STRIDE;
// Shares of an invocation. The loops are counted, so that a compiler can unroll them and have all loads in flight.
const X_EACH: u32 = ROWS * STAGED_PIECES / THREADS;
const WEIGHTS_EACH: u32 = OUTS * STAGED_PIECES / THREADS;
const SUMS_EACH: u32 = ROWS * OUTPUTS / THREADS;

const_assert CHUNK_PIECES == 8u && ROWS * STAGED_PIECES % THREADS == 0u;
const_assert OUTS * STAGED_PIECES % THREADS == 0u && ROWS * OUTPUTS % THREADS == 0u;

var<workgroup> staged_x: array<f16, 2u * X_LEN>;                 // [half, part, row, STRIDE]
var<workgroup> staged_weights: array<f16, WEIGHT_HALVES * WEIGHTS_LEN>;
var<workgroup> products: array<f32, PARTS * ROWS * OUTS>;        // [part, row, out]
// Factors that take the scale off the products, [side, part, row]: one side is read while the other is written.
var<workgroup> unscale: array<f32, 2u * PARTS * ROWS>;

// Index of the weight row `half` of an output.
fn weight_row(output: u32, half: u32) -> u32 {
    return (output / LANES * PAIR + half) * LANES + output % LANES;
}

// Eight weights of a weight row, scaled; zeros beyond the matrix.
fn scaled_weights(output: u32, half: u32, piece: u32) -> Eight {
    if output >= params.rows_out || piece >= params.pieces { return Eight(vec4(0.0), vec4(0.0)); }
    let row = weight_row(output, half);
    let w = weight8_of(row, piece, params.pieces);
    let scale = scales[row];
    return Eight(w.low * scale, w.high * scale);
}

fn magnitude(v: Eight) -> u32 {
    // As integers, magnitudes keep their order, and NaN is the largest.
    let bits = max(bitcast<vec4<u32>>(abs(v.low)), bitcast<vec4<u32>>(abs(v.high)));
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// The largest among the eight invocations that stage a chunk of a row, neighbours in a subgroup.
fn largest_of_eight(bits: u32) -> u32 {
    var m = max(bits, subgroupShuffleXor(bits, 1u));
    m = max(m, subgroupShuffleXor(m, 2u));
    return max(m, subgroupShuffleXor(m, 4u));
}

// The exponent's bits of the power of two that brings a value of these bits to [2^14, 2^15).
fn scale_bits(bits: u32) -> u32 {
    return min(127u + 14u + 127u - (bits >> 23u), 253u);
}

fn power_of_two(bits: u32) -> f32 {
    return bitcast<f32>(bits << 23u);
}

// The nearest values of 11 bits, which f16 holds. By their bits: a compiler may take f32(f16(v)) for v, and then finds
// the other half to be zero.
fn upper_half(v: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>((bitcast<vec4<u32>>(v) + 0x1000u) & vec4(0xffffe000u));
}

fn stage_x(at: u32, v: vec4<f32>) {
    let upper = upper_half(v);
    let high = vec4<f16>(upper);
    let low = vec4<f16>(v - upper);
    staged_x[at] = high.x;
    staged_x[at + 1u] = high.y;
    staged_x[at + 2u] = high.z;
    staged_x[at + 3u] = high.w;
    staged_x[X_LEN + at] = low.x;
    staged_x[X_LEN + at + 1u] = low.y;
    staged_x[X_LEN + at + 2u] = low.z;
    staged_x[X_LEN + at + 3u] = low.w;
}

fn stage_weights(at: u32, v: vec4<f32>) {
    let upper = upper_half(v);
    let high = vec4<f16>(upper);
    staged_weights[at] = high.x;
    staged_weights[at + 1u] = high.y;
    staged_weights[at + 2u] = high.z;
    staged_weights[at + 3u] = high.w;
    if WEIGHT_HALVES == 2u {
        let low = vec4<f16>(v - upper);
        staged_weights[WEIGHTS_LEN + at] = low.x;
        staged_weights[WEIGHTS_LEN + at + 1u] = low.y;
        staged_weights[WEIGHTS_LEN + at + 2u] = low.z;
        staged_weights[WEIGHTS_LEN + at + 3u] = low.w;
    }
}

@compute @workgroup_size(THREADS)
fn matmul_cooperative(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let first_out = (group.x + group.y * groups.x) * OUTPUTS;
    let first = group.z * ROWS;
    let rows = select(step.rows, step.outputs, OUTPUT_ROWS != 0u);
    // Two steps, for naga does not see that a disjunction of uniform conditions is uniform.
    if first_out >= params.rows_out { return; }
    if first >= rows { return; }
    let chunks = (params.pieces + CHUNK_PIECES - 1u) / CHUNK_PIECES;

    var sums: array<array<f32, PAIR>, SUMS_EACH>;
    for (var chunk = 0u; chunk < chunks; chunk += PARTS) {
        let parts = min(PARTS, chunks - chunk);
        let side = chunk / PARTS % 2u * PARTS * ROWS;

        for (var i = 0u; i < X_EACH; i++) {
            let at = i * THREADS + local;
            let piece = at % CHUNK_PIECES;
            let part = at / CHUNK_PIECES % PARTS;
            let row = at / STAGED_PIECES;
            let from_piece = (chunk + part) * CHUNK_PIECES + piece;
            var v = Eight(vec4(0.0), vec4(0.0));
            if first + row < rows && from_piece < params.pieces {
                let begin = ((first + row) * params.pieces + from_piece) * 2u;
                v = Eight(x[begin], x[begin + 1u]);
            }
            let bits = scale_bits(largest_of_eight(magnitude(v)));
            let scale = power_of_two(bits);
            let to = part * ROWS + row;
            stage_x(to * STRIDE + piece * 8u, v.low * scale);
            stage_x(to * STRIDE + piece * 8u + 4u, v.high * scale);
            if piece == 0u { unscale[side + to] = power_of_two(254u - bits); }
        }
        for (var i = 0u; i < WEIGHTS_EACH; i++) {
            let at = i * THREADS + local;
            let piece = at / OUTS;
            let out = at % OUTS;
            let staged = (piece / CHUNK_PIECES * OUTS + out) * STRIDE + piece % CHUNK_PIECES * 8u;
            let w = scaled_weights(first_out + out % OUTPUTS, out / OUTPUTS, chunk * CHUNK_PIECES + piece);
            stage_weights(staged, w.low);
            stage_weights(staged + 4u, w.high);
        }
        workgroupBarrier();

        for (var item = subgroup; item < parts * OUT_TILES * ROW_TILES; item += subgroups) {
            let part = item / (OUT_TILES * ROW_TILES);
            let tile = item / ROW_TILES % OUT_TILES * TILE;
            let row = item % ROW_TILES * TILE;
            let depth = min(CHUNK, (params.pieces - (chunk + part) * CHUNK_PIECES) * 8u);
            var sum: Sums;
            for (var d = 0u; d < depth; d += TILE) {
                let w_at = (part * OUTS + tile) * STRIDE + d;
                let x_at = (part * ROWS + row) * STRIDE + d;
                let w = coopLoad<Right>(&staged_weights[w_at], STRIDE);
                let high = coopLoadT<Left>(&staged_x[x_at], STRIDE);
                let low = coopLoadT<Left>(&staged_x[X_LEN + x_at], STRIDE);
                sum = coopMultiplyAdd(high, w, sum);
                sum = coopMultiplyAdd(low, w, sum);
                if WEIGHT_HALVES == 2u {
                    let w_low = coopLoad<Right>(&staged_weights[WEIGHTS_LEN + w_at], STRIDE);
                    sum = coopMultiplyAdd(high, w_low, sum);
                }
            }
            coopStoreT(sum, &products[(part * ROWS + row) * OUTS + tile], OUTS);
        }
        workgroupBarrier();

        for (var part = 0u; part < parts; part++) {
            for (var i = 0u; i < SUMS_EACH; i++) {
                let at = part * ROWS * OUTPUTS + i * THREADS + local;
                let row = at / OUTPUTS;
                for (var half = 0u; half < PAIR; half++) {
                    let product = products[row * OUTS + half * OUTPUTS + at % OUTPUTS];
                    sums[i][half] = fma(product, unscale[side + row], sums[i][half]);
                }
            }
        }
    }

    for (var i = 0u; i < SUMS_EACH; i++) {
        let at = i * THREADS + local;
        let row = first + at / OUTPUTS;
        let output = first_out + at % OUTPUTS;
        if row < rows && output < params.rows_out {
            for (var half = 0u; half < PAIR; half++) {
                let bits = bitcast<u32>(scales[weight_row(output, half)]) >> 23u;
                sums[i][half] *= power_of_two(254u - bits);
            }
            let out = params.first_out + output;
            finish(row * params.stride + out, out, sums[i][0], sums[i][PAIR - 1u]);
        }
    }
}
