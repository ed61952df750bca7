// Rotary position embedding on q and k; k and v into the cache. Su et al. 2021, arXiv:2104.09864, in the pairing of
// Hugging Face's checkpoints, where dimension i turns with i + h, h = HEAD_DIM / 2:
//   x[i], x[i + h] = x[i] cos - x[i + h] sin, x[i + h] cos + x[i] sin         with the angle of (position, i)
// Keys are kept in pieces of 8 dimensions with KEY_TILE neighbouring positions side by side, so that attention's lanes,
// one a key, read contiguously; values are kept row by row.
//
// Constants: HEADS, KV_HEADS, HEAD_DIM, KEY_TILE.
// Dispatch: x over (HEADS + 2 * KV_HEADS) * HEAD_DIM / 16 in workgroups of 64, y over rows.
struct RopeParams { capacity: u32, epsilon: f32 }                         // positions of a slot, a multiple of KEY_TILE
@group(0) @binding(0) var<uniform> params: RopeParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> angles: array<vec4<f32>>;        // [positions, 2, HEAD_DIM / 2]: cos, sin
@group(0) @binding(3) var<storage, read> qkv: array<vec4<f32>>;           // [rows, (HEADS + 2 * KV_HEADS) * HEAD_DIM]
@group(0) @binding(6) var<storage, read_write> query: array<vec4<f32>>;   // [rows, HEADS * HEAD_DIM]

const PARTS: u32 = HEAD_DIM / 16u;  // eights in half a head

fn key_index(head: u32, position: u32, piece: u32) -> u32 {
    let tile = head * (params.capacity / KEY_TILE) + position / KEY_TILE;
    return (tile * 2u * PARTS + piece) * KEY_TILE + position % KEY_TILE;
}

@compute @workgroup_size(64)
fn rope(@builtin(global_invocation_id) at: vec3<u32>) {
    let head = at.x / PARTS;
    let part = at.x % PARTS;
    if head >= HEADS + 2u * KV_HEADS { return; }
    let position = position_of(at.y);
    let slot = slot_of(at.y);
    let first = (at.y * (HEADS + 2u * KV_HEADS) + head) * HEAD_DIM / 4u;
    // The invocation's two eights: one in each half of the head.
    let low = first + part * 2u;
    let high = low + PARTS * 2u;
    if head >= HEADS + KV_HEADS {
        let row = ((slot * KV_HEADS + head - HEADS - KV_HEADS) * params.capacity + position) * 2u * PARTS + part;
        write_value8(row, Eight(qkv[low], qkv[low + 1u]));
        write_value8(row + PARTS, Eight(qkv[high], qkv[high + 1u]));
        return;
    }

    let is_key = head >= HEADS;
    let scale = head_scale(first);
    let turn = position * PARTS * 4u + part * 2u;
    var a: array<vec4<f32>, 2>;
    var b: array<vec4<f32>, 2>;
    for (var i = 0u; i < 2u; i++) {
        let x = qkv[low + i] * scale * head_gain(is_key, part * 2u + i);
        let z = qkv[high + i] * scale * head_gain(is_key, (part + PARTS) * 2u + i);
        let cosine = angles[turn + i];
        let sine = angles[turn + PARTS * 2u + i];
        a[i] = fma(x, cosine, -(z * sine));
        b[i] = fma(z, cosine, x * sine);
    }
    if is_key {
        let cached = slot * KV_HEADS + head - HEADS;
        write_key8(key_index(cached, position, part), Eight(a[0], a[1]));
        write_key8(key_index(cached, position, part + PARTS), Eight(b[0], b[1]));
        return;
    }
    let out = (at.y * HEADS + head) * HEAD_DIM / 4u + part * 2u;
    query[out] = a[0];
    query[out + 1u] = a[1];
    query[out + PARTS * 2u] = b[0];
    query[out + PARTS * 2u + 1u] = b[1];
}
