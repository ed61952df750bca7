// Code shared by the attention of training rows and its gradients. They work on tiles of TILE pairs of (row, query head),
// all of one key-value head, by TILE keys. A lane scores 4 pairs by 4 keys; the scores then go through workgroup memory,
// and for the product that follows it holds 4 rows of sums by STEPS eights of the head's dimensions.
//
// Constants: HEADS, KV_HEADS, HEAD_DIM, KEY_TILE.
// A head of more than PART eights is cut into parts, one a workgroup, so that the sums stay in registers.
struct PackedAttentionParams {
    capacity: u32,   // rows in the cache
    scale: f32,      // 1 / sqrt(HEAD_DIM)
}
@group(0) @binding(0) var<uniform> params: PackedAttentionParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(5) var<storage, read> training_rows: array<TrainingRow>;   // [rows]

const GROUP: u32 = HEADS / KV_HEADS;
const PIECES: u32 = HEAD_DIM / 8u;
const SIDE: u32 = 8u;                                  // lanes along either side of a tile
const TILE: u32 = 4u * SIDE;
const STEPS: u32 = min(2u, (PIECES + SIDE - 1u) / SIDE);
const PART: u32 = 2u * SIDE;

// A pair's place in [rows, HEADS].
fn pair_index(pair: u32, kv_head: u32) -> u32 {
    return (pair / GROUP) * HEADS + kv_head * GROUP + pair % GROUP;
}

// Visibility of a row, for `visible`: context_first, context_end, chain_first, row.
fn sight(row: u32) -> vec4<u32> {
    return vec4(training_rows[row].context_first, training_rows[row].context_end, training_rows[row].chain_first, row);
}

// Mask of the four keys from `key` on that a row sees.
fn visible(sight: vec4<u32>, key: u32) -> vec4<bool> {
    let keys = vec4(key) + vec4(0u, 1u, 2u, 3u);
    let in_context = (keys >= vec4(sight.x)) & (keys < vec4(sight.y));
    let in_chain = (keys >= vec4(sight.z)) & (keys <= vec4(sight.w));
    return in_context | in_chain;
}

// The tiles of keys that the rows first ..= last see anything of: x .. y for contexts, z .. w for chains beyond those.
fn seen_tiles(first: u32, last: u32) -> vec4<u32> {
    var seen = vec3(first, first, first);              // a row sees itself
    for (var row = first; row <= last; row++) {
        let its = sight(row);
        seen = vec3(min(seen.x, its.x), max(seen.y, its.y), min(seen.z, its.z));
    }
    let context_end = (seen.y + TILE - 1u) / TILE;
    let chain_first = max(seen.z / TILE, context_end);
    return vec4(seen.x / TILE, context_end, chain_first, max(last / TILE + 1u, chain_first));
}

// Index of a key and its value in the cache. Keys past the last row, which no row sees, repeat it: they may be anything.
fn place_of(kv_head: u32, key: u32) -> u32 { return kv_head * params.capacity + min(key, step.rows - 1u); }

fn read_value8(place: u32, piece: u32) -> Eight {
    return Eight(read_value4(place, 2u * piece), read_value4(place, 2u * piece + 1u));
}

// Scores of four pairs, whose queries begin at `queries`, by the four keys from `key` on.
fn score(queries: ptr<function, array<u32, 4>>, kv_head: u32, key: u32) -> array<vec4<f32>, 4> {
    var at: array<u32, 4>;
    for (var j = 0u; j < 4u; j++) { at[j] = place_of(kv_head, key + j); }
    var scores: array<vec4<f32>, 4>;
    for (var piece = 0u; piece < PIECES; piece++) {
        var k: array<Eight, 4>;
        for (var j = 0u; j < 4u; j++) { k[j] = read_key8(at[j], piece); }
        for (var i = 0u; i < 4u; i++) {
            let start = (*queries)[i] + piece * 2u;
            let q = Eight(query[start], query[start + 1u]);
            for (var j = 0u; j < 4u; j++) { scores[i][j] = dot_add(q, k[j], scores[i][j]); }
        }
    }
    for (var i = 0u; i < 4u; i++) { scores[i] *= params.scale; }
    return scores;
}

fn add_scaled(factor: f32, v: Eight, sum: Eight) -> Eight {
    return Eight(fma(vec4(factor), v.low, sum.low), fma(vec4(factor), v.high, sum.high));
}

// exp(x) for x <= 0, up to rounding. Values below e^-100 vanish beside a 1.
fn exp_below(x: vec4<f32>) -> vec4<f32> { return exp(clamp(x, vec4(-100.0), vec4(0.0))); }
