// Causal attention over the cache, for one key-value head and PAIRS pairs of (row, query head) that share it:
//   out = sum over keys k <= position of softmax(q . k / sqrt(HEAD_DIM)) * v, over the last WINDOW of them if that is not 0
// Dao et al. 2023 ("Flash-Decoding"): the keys are cut at multiples of SPLIT, whatever the row. A part yields its
// largest score m, its sum l of exp(score - m) and its weighted sum of values. The parts of KEY_BLOCK keys are merged in
// order, and so are these blocks. A row sees the same parts in the same order whoever runs beside it, and keys beyond its
// position or before its window are skipped, not multiplied by 0. Parts that no row here sees are not looked at.
// A workgroup walks SPAN keys: a part, a block, or all of them if SPAN is 0 (prompts, and where there is but one span).
// `attention_merge` merges what the workgroups of a row leave, with the bits that a longer walk would give.
//
// Constants: HEADS, KV_HEADS, HEAD_DIM, KEY_TILE (= 64), SPLIT, KEY_BLOCK, SPAN, WINDOW; PAIRS (with rows/many it divides
// GROUP); UNIT keys (whole parts) whose scores are made before any value is read; of a lane KEYS keys, KEY_PIECES eights
// of each (a divisor of PIECES), and VALUES values, whose loads are in flight together; HOLD 1 where workgroup memory is a
// better place for queries than a cache, as it is if lanes do not share a load of the same value.
// Dispatch: x key-value heads, y pairs / PAIRS, z spans, counted from the first that a workgroup sees.
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;     // SPAN 0: [rows, HEADS * HEAD_DIM], else
                                                                          // [rows, HEADS, entries, HEAD_DIM]
@group(0) @binding(6) var<storage, read_write> sums: array<vec2<f32>>;    // [rows, HEADS, entries]: m, l

const GROUP: u32 = HEADS / KV_HEADS;
const PIECES: u32 = HEAD_DIM / 8u;
const CHUNKS: u32 = HEAD_DIM / 4u;                     // dimensions in fours
const TEAMS: u32 = max(1u, 64u / CHUNKS);              // chunks are spread over lanes; what is left splits the pairs
const TEAM_PAIRS: u32 = (PAIRS + TEAMS - 1u) / TEAMS;
const CHUNK_STEPS: u32 = (CHUNKS + 63u) / 64u;
const PARTIALS: u32 = 8u;                              // lanes that reduce one pair's scores of a part
const UNIT_PARTS: u32 = UNIT / SPLIT;
const ROW: u32 = UNIT + PARTIALS;                      // a pair's scores; the gap keeps pairs on banks of their own
const HELD: u32 = max(1u, HOLD * PAIRS * PIECES * 2u);
const ALL: bool = SPAN == 0u;
const PARTS_MERGE: bool = KEY_BLOCK > SPLIT && SPAN != SPLIT;
// Set if the pairs of a workgroup are whole groups, or of one group.
const ALIGNED: bool = PAIRS % GROUP == 0u || GROUP % PAIRS == 0u;

var<workgroup> held: array<vec4<f32>, HELD>;                                  // HOLD: the queries
var<workgroup> scores: array<f32, PAIRS * ROW>;                               // then exp(score - m)
var<workgroup> maxima: array<f32, UNIT_PARTS * PAIRS * PARTIALS>;
var<workgroup> totals: array<f32, UNIT_PARTS * PAIRS * PARTIALS>;
var<workgroup> part_factors: array<vec2<f32>, UNIT_PARTS * PAIRS>;            // for the sums so far, and for one more
var<workgroup> block_factors: array<vec2<f32>, PAIRS>;
var<workgroup> whole: array<f32, PAIRS>;                                      // ALL: the merged l

// Row and query head, within its group, of pair `first + p`.
fn row_of(first: u32, p: u32) -> u32 { return select((first + p) / GROUP, first / GROUP + p / GROUP, ALIGNED); }
fn head_of(first: u32, p: u32) -> u32 { return select((first + p) % GROUP, first % GROUP + p % GROUP, ALIGNED); }

// Start of the query of pair `first + p`, in pieces of 4.
fn query_of(first: u32, p: u32, last_row: u32, kv_head: u32) -> u32 {
    let head = min(row_of(first, p), last_row) * HEADS + kv_head * GROUP + head_of(first, p);
    return head * PIECES * 2u;
}

fn largest(part: u32, p: u32) -> f32 {
    let from_part = (part * PAIRS + p) * PARTIALS;
    var m = maxima[from_part];
    for (var i = 1u; i < PARTIALS; i++) { m = max(m, maxima[from_part + i]); }
    return m;
}

fn total(part: u32, p: u32) -> f32 {
    let from_part = (part * PAIRS + p) * PARTIALS;
    var l = totals[from_part];
    for (var i = 1u; i < PARTIALS; i++) { l += totals[from_part + i]; }
    return l;
}

@compute @workgroup_size(64)
fn attention(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let kv_head = group.x;
    let first = group.y * PAIRS;
    let pairs = min(PAIRS, step.rows * GROUP - min(first, step.rows * GROUP));
    if pairs == 0u { return; }
    // The pairs here are of one slot, and of ascending positions: the first one's window begins first.
    let first_row = first / GROUP;
    let last_row = (first + pairs - 1u) / GROUP;
    let last_seen = position_of(last_row);                           // the last key any of them may see
    let cached = (slot_of(first_row) * KV_HEADS + kv_head) * params.capacity;
    var unit = first_key(first_row) / UNIT;
    var end = last_seen / UNIT + 1u;
    var span = 0u;
    if !ALL {
        span = first_key(first_row) / max(SPAN, 1u) + group.z;
        unit = max(unit, span * SPAN / UNIT);
        end = min(end, (span + 1u) * SPAN / UNIT);
    }
    if unit >= end { return; }

    let chunk = lane % CHUNKS;
    let team = lane / CHUNKS;
    var queries: array<u32, PAIRS>;
    for (var p = 0u; p < PAIRS; p++) { queries[p] = query_of(first, p, last_row, kv_head); }
    if HOLD != 0u {
        for (var i = lane; i < HELD; i += 64u) {
            held[i] = query[query_of(first, i / (PIECES * 2u), last_row, kv_head) + i % (PIECES * 2u)];
        }
        workgroupBarrier();
    }
    // m and l of pair number `lane`: of this block's parts so far, and of the blocks before it.
    var block = vec2(LOWEST, 0.0);
    var blocks = vec2(LOWEST, 0.0);
    // Likewise the values of this block's parts, for the pairs of this lane's team. Those of the blocks lie in `out`.
    var block_sum: array<array<vec4<f32>, CHUNK_STEPS>, TEAM_PAIRS>;

    for (; unit < end; unit++) {
        let start = unit * UNIT;
        let first_of_block = start / KEY_BLOCK * KEY_BLOCK;
        let ends_block = ALL && ((start + UNIT) % KEY_BLOCK == 0u || unit + 1u == end);
        // Scores: a lane KEYS keys.
        let hidden_tiles = hidden(first_row, start, UNIT) / (KEYS * KEY_TILE);
        for (var tile = 0u; tile < UNIT / (KEYS * KEY_TILE); tile++) {
            let key = tile * KEYS * KEY_TILE + lane;
            if tile < hidden_tiles || start + key > last_seen { continue; }
            var dots: array<array<f32, KEYS>, PAIRS>;
            for (var piece = 0u; piece < PIECES; piece += KEY_PIECES) {
                var k: array<array<Key8, KEYS>, KEY_PIECES>;
                for (var j = 0u; j < KEY_PIECES; j++) {
                    for (var i = 0u; i < KEYS; i++) {
                        k[j][i] = load_key8(cached + min(start + key + i * KEY_TILE, last_seen), piece + j);
                    }
                }
                for (var j = 0u; j < KEY_PIECES; j++) {
                    for (var p = 0u; p < PAIRS; p++) {
                        let at = (piece + j) * 2u;
                        var q: Eight;
                        if HOLD != 0u {
                            q = Eight(held[p * PIECES * 2u + at], held[p * PIECES * 2u + at + 1u]);
                        } else {
                            q = Eight(query[queries[p] + at], query[queries[p] + at + 1u]);
                        }
                        for (var i = 0u; i < KEYS; i++) { dots[p][i] = dot_add(q, key8(k[j][i]), dots[p][i]); }
                    }
                }
            }
            for (var p = 0u; p < PAIRS; p++) {
                for (var i = 0u; i < KEYS; i++) { scores[p * ROW + key + i * KEY_TILE] = dots[p][i] * params.scale; }
            }
        }
        workgroupBarrier();

        // The largest score of each pair in each part, then the sum of exponentials: PARTIALS lanes a pair.
        for (var i = lane; i < UNIT_PARTS * PAIRS * PARTIALS; i += 64u) {
            let p = i / PARTIALS % PAIRS;
            let part = i / PARTIALS / PAIRS * SPLIT;
            let row = row_of(first, p);
            let seen = visible(row, start + part, SPLIT);
            var m = LOWEST;
            for (var k = hidden(row, start + part, SPLIT) + i % PARTIALS; k < seen; k += PARTIALS) {
                m = max(m, scores[p * ROW + part + k]);
            }
            maxima[i] = m;
        }
        workgroupBarrier();
        for (var i = lane; i < UNIT_PARTS * PAIRS * PARTIALS; i += 64u) {
            let p = i / PARTIALS % PAIRS;
            let part = i / PARTIALS / PAIRS * SPLIT;
            let row = row_of(first, p);
            let seen = visible(row, start + part, SPLIT);
            let m = largest(part / SPLIT, p);
            var l = 0.0;
            for (var k = hidden(row, start + part, SPLIT) + i % PARTIALS; k < seen; k += PARTIALS) {
                let e = exp(scores[p * ROW + part + k] - m);
                scores[p * ROW + part + k] = e;
                l += e;
            }
            totals[i] = l;
        }
        // Meanwhile the merges' factors: from here on only the largest scores decide them.
        var m = block.x;
        if lane < pairs && (PARTS_MERGE || ALL) {
            let row = row_of(first, lane);
            for (var part = 0u; part < UNIT_PARTS; part++) {
                if sees(row, start + part * SPLIT, SPLIT) {
                    let of_part = largest(part, lane);
                    part_factors[part * PAIRS + lane] = rescaling(m, of_part);
                    m = max(m, of_part);
                }
            }
            if ends_block && sees(row, first_of_block, KEY_BLOCK) { block_factors[lane] = rescaling(blocks.x, m); }
        }
        workgroupBarrier();

        if lane < pairs {
            let row = row_of(first, lane);
            for (var part = 0u; part < UNIT_PARTS; part++) {
                if sees(row, start + part * SPLIT, SPLIT) {
                    let l = total(part, lane);
                    if PARTS_MERGE {
                        let factors = part_factors[part * PAIRS + lane];
                        block = vec2(m, merged(block.y, l, factors));
                    } else {
                        block = vec2(largest(part, lane), l);
                    }
                }
            }
            if ends_block && sees(row, first_of_block, KEY_BLOCK) {
                let factors = block_factors[lane];
                blocks = vec2(max(blocks.x, block.x), merged(blocks.y, block.y, factors));
                block = vec2(LOWEST, 0.0);
            }
        }
        // Values: a lane four dimensions, for every pair of its team.
        for (var c = 0u; c < CHUNK_STEPS; c++) {
            let dims = chunk + c * 64u;
            if team < TEAMS && dims < CHUNKS {
                for (var part = 0u; part < UNIT_PARTS; part++) {
                    let from_part = start + part * SPLIT;
                    // Rows ascend: all see the keys from the last one's first to the first one's last.
                    let from_all = hidden(last_row, from_part, SPLIT);
                    let least = visible(first_row, from_part, SPLIT);
                    let most = visible(last_row, from_part, SPLIT);
                    var weighted: array<vec4<f32>, TEAM_PAIRS>;
                    var turn = hidden(first_row, from_part, SPLIT) / VALUES;
                    while turn * VALUES < most {
                        for (; turn * VALUES >= from_all && (turn + 1u) * VALUES <= least; turn++) {
                            var v: array<Value4, VALUES>;
                            for (var j = 0u; j < VALUES; j++) {
                                v[j] = load_value4(cached + from_part + turn * VALUES + j, dims);
                            }
                            for (var j = 0u; j < VALUES; j++) {
                                let value = value4(v[j]);
                                for (var t = 0u; t < TEAM_PAIRS; t++) {
                                    let p = min(t * TEAMS + team, PAIRS - 1u);
                                    let e = scores[p * ROW + part * SPLIT + turn * VALUES + j];
                                    weighted[t] = fma(vec4(e), value, weighted[t]);
                                }
                            }
                        }
                        if turn * VALUES < most {
                            var v: array<Value4, VALUES>;
                            for (var j = 0u; j < VALUES; j++) {
                                v[j] = load_value4(cached + from_part + min(turn * VALUES + j, most - 1u), dims);
                            }
                            for (var j = 0u; j < VALUES; j++) {
                                let value = value4(v[j]);
                                let k = turn * VALUES + j;
                                for (var t = 0u; t < TEAM_PAIRS; t++) {
                                    let p = min(t * TEAMS + team, PAIRS - 1u);
                                    let row = row_of(first, p);
                                    let shows = visible(row, from_part, SPLIT);
                                    if k >= hidden(row, from_part, SPLIT) && k < shows {
                                        weighted[t] = fma(vec4(scores[p * ROW + part * SPLIT + k]), value, weighted[t]);
                                    }
                                }
                            }
                            turn++;
                        }
                    }
                    for (var t = 0u; t < TEAM_PAIRS; t++) {
                        let p = t * TEAMS + team;
                        if p < pairs && sees(row_of(first, p), from_part, SPLIT) {
                            if PARTS_MERGE {
                                let factors = part_factors[part * PAIRS + p];
                                block_sum[t][c] = merged4(block_sum[t][c], weighted[t], factors);
                            } else {
                                block_sum[t][c] = weighted[t];
                            }
                        }
                    }
                }
                if ends_block {
                    for (var t = 0u; t < TEAM_PAIRS; t++) {
                        let p = t * TEAMS + team;
                        let row = row_of(first, p);
                        if p < pairs && sees(row, first_of_block, KEY_BLOCK) {
                            let factors = block_factors[p];
                            let at = (row * HEADS + kv_head * GROUP + head_of(first, p)) * CHUNKS + dims;
                            var sum = vec4(0.0);
                            if first_of_block > first_key(row) { sum = out[at]; }
                            out[at] = merged4(sum, block_sum[t][c], factors);
                            block_sum[t][c] = vec4(0.0);
                        }
                    }
                }
            }
        }
        workgroupBarrier();
    }

    if lane < pairs {
        let row = row_of(first, lane);
        if ALL {
            whole[lane] = blocks.y;
        } else if sees(row, span * SPAN, SPAN) {
            sums[entry(row, kv_head * GROUP + head_of(first, lane), span)] = block;
        }
    }
    workgroupBarrier();
    for (var c = 0u; c < CHUNK_STEPS; c++) {
        let dims = chunk + c * 64u;
        for (var t = 0u; t < TEAM_PAIRS; t++) {
            let p = t * TEAMS + team;
            if team < TEAMS && dims < CHUNKS && p < pairs {
                let row = row_of(first, p);
                let head = kv_head * GROUP + head_of(first, p);
                if ALL {
                    out[(row * HEADS + head) * CHUNKS + dims] /= whole[p];
                } else if sees(row, span * SPAN, SPAN) {
                    out[entry(row, head, span) * CHUNKS + dims] = block_sum[t][c];
                }
            }
        }
    }
}
