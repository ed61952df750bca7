// Causal attention over the cache, for one key-value head and PAIRS pairs of (row, query head) that share it:
//   out = sum over keys k <= position of softmax(q . k / sqrt(HEAD_DIM)) * v, over the last WINDOW of them if that is not 0
// Dao et al. 2023 ("Flash-Decoding"): the keys are cut at multiples of SPLIT, whatever the row. A part yields its
// largest score m, its sum l of exp(score - m) and its weighted sum of values; parts are merged in order. A row sees the
// same parts in the same order whoever runs beside it, and keys beyond its position or before its window are skipped, not
// multiplied by 0. Parts that no row here sees are not looked at.
// With SERIAL the workgroup walks all parts itself (prompts, and where there is but one part); else each part is a
// workgroup, and `attention_merge` merges them.
//
// Constants: HEADS, KV_HEADS, HEAD_DIM, KEY_TILE (= 64), SPLIT, PAIRS (with rows/many it divides GROUP), SERIAL,
// WINDOW; KEY_PIECES eights of a key, a divisor of PIECES, and VALUES values, whose loads are in flight together.
// Dispatch: x key-value heads, y pairs / PAIRS, z parts (1 with SERIAL), counted from the first that a workgroup sees.
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;     // SERIAL: [rows, HEADS * HEAD_DIM], else
                                                                          // [rows, HEADS, splits, HEAD_DIM]
@group(0) @binding(6) var<storage, read_write> sums: array<vec2<f32>>;    // [rows, HEADS, splits]: m, l

const GROUP: u32 = HEADS / KV_HEADS;
const PIECES: u32 = HEAD_DIM / 8u;
const CHUNKS: u32 = HEAD_DIM / 4u;                     // dimensions in fours
const TEAMS: u32 = max(1u, 64u / CHUNKS);              // chunks are spread over lanes; what is left splits the pairs
const TEAM_PAIRS: u32 = (PAIRS + TEAMS - 1u) / TEAMS;
const CHUNK_STEPS: u32 = (CHUNKS + 63u) / 64u;
const PARTIALS: u32 = 8u;                              // lanes that reduce one pair's scores

var<workgroup> scores: array<f32, PAIRS * SPLIT>;      // then exp(score - m)
var<workgroup> gathered: array<f32, PAIRS * PARTIALS>;
var<workgroup> largest: array<f32, PAIRS>;
var<workgroup> total: array<f32, PAIRS>;

// How many of the first keys of part `split` lie before the window of pair `pair`.
fn hidden(pair: u32, split: u32) -> u32 {
    if WINDOW == 0u { return 0u; }
    return min(max(first_key(pair / GROUP), split * SPLIT) - split * SPLIT, SPLIT);
}

// The keys of part `split` that pair `pair` may see, those before its window included.
fn visible(pair: u32, split: u32) -> u32 {
    let row = pair / GROUP;
    if row >= step.rows { return 0u; }
    let seen = position_of(row) + 1u;
    if seen <= split * SPLIT { return 0u; }
    return min(seen - split * SPLIT, SPLIT);
}

fn sees(pair: u32, split: u32) -> bool { return hidden(pair, split) < visible(pair, split); }

fn query_index(pair: u32, kv_head: u32) -> u32 {
    return ((pair / GROUP) * HEADS + kv_head * GROUP + pair % GROUP);
}

@compute @workgroup_size(64)
fn attention(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let kv_head = group.x;
    let first = group.y * PAIRS;
    let pairs = min(PAIRS, step.rows * GROUP - min(first, step.rows * GROUP));
    if pairs == 0u { return; }
    // The pairs here are of one slot, and of ascending positions.
    let last_seen = position_of((first + pairs - 1u) / GROUP);  // the last key any of them may see
    let cached = slot_of(first / GROUP) * KV_HEADS + kv_head;
    // Rows ascend: the first one's window begins first.
    var split = first_key(first / GROUP) / SPLIT + group.z;
    var end = split + 1u;
    if SERIAL != 0u { end = last_seen / SPLIT + 1u; }
    if split * SPLIT > last_seen { return; }

    let chunk = lane % CHUNKS;
    let team = lane / CHUNKS;
    var queries: array<u32, PAIRS>;                                  // where each pair's query begins, in pieces of 4
    for (var p = 0u; p < PAIRS; p++) {
        queries[p] = query_index(min(first + p, first + pairs - 1u), kv_head) * PIECES * 2u;
    }
    var state: array<vec2<f32>, PAIRS>;                              // SERIAL: the merged m and l so far
    var sum: array<array<vec4<f32>, CHUNK_STEPS>, TEAM_PAIRS>;       // SERIAL: the merged values so far
    for (var p = 0u; p < PAIRS; p++) { state[p] = vec2(LOWEST, 0.0); }

    for (; split < end; split++) {
        // Scores: a lane a key.
        for (var tile = hidden(first, split) / KEY_TILE; tile < SPLIT / KEY_TILE; tile++) {
            let key = split * SPLIT + tile * KEY_TILE + lane;
            if key > last_seen { break; }
            let place = cached * params.capacity + key;
            var dots: array<f32, PAIRS>;
            var next: array<Eight, KEY_PIECES>;
            for (var j = 0u; j < KEY_PIECES; j++) { next[j] = read_key8(place, j); }
            for (var piece = 0u; piece < PIECES; piece += KEY_PIECES) {
                let k = next;
                if KEY_PIECES < PIECES {
                    let after = min(piece + KEY_PIECES, PIECES - KEY_PIECES);
                    for (var j = 0u; j < KEY_PIECES; j++) { next[j] = read_key8(place, after + j); }
                }
                for (var j = 0u; j < KEY_PIECES; j++) {
                    for (var p = 0u; p < PAIRS; p++) {
                        let q = queries[p] + (piece + j) * 2u;
                        dots[p] = dot_add(Eight(query[q], query[q + 1u]), k[j], dots[p]);
                    }
                }
            }
            for (var p = 0u; p < PAIRS; p++) { scores[p * SPLIT + tile * KEY_TILE + lane] = dots[p] * params.scale; }
        }
        workgroupBarrier();

        // The largest score of each pair, then the sum of exponentials: PARTIALS lanes a pair.
        for (var i = lane; i < pairs * PARTIALS; i += 64u) {
            let p = i / PARTIALS;
            let keys_seen = visible(first + p, split);
            var m = LOWEST;
            for (var k = hidden(first + p, split) + i % PARTIALS; k < keys_seen; k += PARTIALS) {
                m = max(m, scores[p * SPLIT + k]);
            }
            gathered[i] = m;
        }
        workgroupBarrier();
        for (var p = lane; p < pairs; p += 64u) {
            var m = gathered[p * PARTIALS];
            for (var i = 1u; i < PARTIALS; i++) { m = max(m, gathered[p * PARTIALS + i]); }
            largest[p] = m;
        }
        workgroupBarrier();
        for (var i = lane; i < pairs * PARTIALS; i += 64u) {
            let p = i / PARTIALS;
            let keys_seen = visible(first + p, split);
            var l = 0.0;
            for (var k = hidden(first + p, split) + i % PARTIALS; k < keys_seen; k += PARTIALS) {
                let e = exp(scores[p * SPLIT + k] - largest[p]);
                scores[p * SPLIT + k] = e;
                l += e;
            }
            gathered[i] = l;
        }
        workgroupBarrier();
        for (var p = lane; p < pairs; p += 64u) {
            var l = gathered[p * PARTIALS];
            for (var i = 1u; i < PARTIALS; i++) { l += gathered[p * PARTIALS + i]; }
            total[p] = l;
        }
        workgroupBarrier();

        // Values: a lane four dimensions, for every pair of its team.
        for (var c = 0u; c < CHUNK_STEPS; c++) {
            let dims = chunk + c * 64u;
            if team < TEAMS && dims < CHUNKS {
                var part: array<vec4<f32>, TEAM_PAIRS>;
                // Rows ascend: what the first pair sees up to, and the last pair from, all do.
                let from_all = hidden(first + pairs - 1u, split);
                let least = visible(first, split);
                let most = visible(first + pairs - 1u, split);
                let place = cached * params.capacity + split * SPLIT;
                for (var k = hidden(first, split); k < from_all; k++) {
                    let v = read_value4(place + k, dims);
                    for (var t = 0u; t < TEAM_PAIRS; t++) {
                        let p = t * TEAMS + team;
                        if p < pairs && k >= hidden(first + p, split) && k < visible(first + p, split) {
                            part[t] = fma(vec4(scores[p * SPLIT + k]), v, part[t]);
                        }
                    }
                }
                var k = from_all;
                for (; k + VALUES <= least; k += VALUES) {
                    var v: array<vec4<f32>, VALUES>;
                    for (var j = 0u; j < VALUES; j++) { v[j] = read_value4(place + k + j, dims); }
                    for (var t = 0u; t < TEAM_PAIRS; t++) {
                        let p = min(t * TEAMS + team, PAIRS - 1u);
                        var s = part[t];
                        for (var j = 0u; j < VALUES; j++) { s = fma(vec4(scores[p * SPLIT + k + j]), v[j], s); }
                        part[t] = s;
                    }
                }
                for (; k < least; k++) {
                    let v = read_value4(place + k, dims);
                    for (var t = 0u; t < TEAM_PAIRS; t++) {
                        let p = min(t * TEAMS + team, PAIRS - 1u);
                        part[t] = fma(vec4(scores[p * SPLIT + k]), v, part[t]);
                    }
                }
                for (var k = max(from_all, least); k < most; k++) {
                    let v = read_value4(place + k, dims);
                    for (var t = 0u; t < TEAM_PAIRS; t++) {
                        let p = t * TEAMS + team;
                        if p < pairs && k < visible(first + p, split) {
                            part[t] = fma(vec4(scores[p * SPLIT + k]), v, part[t]);
                        }
                    }
                }
                for (var t = 0u; t < TEAM_PAIRS; t++) {
                    let p = t * TEAMS + team;
                    if p < pairs && sees(first + p, split) {
                        if SERIAL != 0u {
                            let m = max(state[p].x, largest[p]);
                            sum[t][c] = sum[t][c] * exp(state[p].x - m) + part[t] * exp(largest[p] - m);
                        } else {
                            out[(query_index(first + p, kv_head) * params.splits + split) * CHUNKS + dims] = part[t];
                        }
                    }
                }
            }
        }
        for (var p = 0u; p < pairs; p++) {
            if sees(first + p, split) {
                if SERIAL != 0u {
                    let m = max(state[p].x, largest[p]);
                    state[p] = vec2(m, state[p].y * exp(state[p].x - m) + total[p] * exp(largest[p] - m));
                } else if lane == 0u {
                    sums[query_index(first + p, kv_head) * params.splits + split] = vec2(largest[p], total[p]);
                }
            }
        }
        workgroupBarrier();
    }

    if SERIAL != 0u {
        for (var c = 0u; c < CHUNK_STEPS; c++) {
            let dims = chunk + c * 64u;
            for (var t = 0u; t < TEAM_PAIRS; t++) {
                let p = t * TEAMS + team;
                if team < TEAMS && dims < CHUNKS && p < pairs {
                    out[query_index(first + p, kv_head) * CHUNKS + dims] = sum[t][c] / state[p].y;
                }
            }
        }
    }
}
