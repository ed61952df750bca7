// Rotary position embedding on q and k; k and v into the cache. Su et al. 2021, arXiv:2104.09864, in the pairing of
// Hugging Face's checkpoints, where dimension i turns with i + h, h = HEAD_DIM / 2:
//   x[i], x[i + h] = x[i] cos - x[i + h] sin, x[i + h] cos + x[i] sin         with the angle of (position, i)
// How the cache keeps a head's eights, by the place that they have in it, is the cache's business (cache/).
//
// Constants: HEADS, KV_HEADS, HEAD_DIM, KEY_TILE, and the cache's.
// Dispatch: x over (HEADS + 2 * KV_HEADS) * HEAD_DIM / 16 in workgroups of 64, y over rows.
struct RopeParams { capacity: u32, epsilon: f32 }                         // positions of a slot, a multiple of KEY_TILE
@group(0) @binding(0) var<uniform> params: RopeParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> angles: array<vec4<f32>>;        // [positions, 2, HEAD_DIM / 2]: cos, sin
@group(0) @binding(3) var<storage, read> qkv: array<vec4<f32>>;           // [rows, (HEADS + 2 * KV_HEADS) * HEAD_DIM]
@group(0) @binding(6) var<storage, read_write> query: array<vec4<f32>>;   // [rows, HEADS * HEAD_DIM]

const PARTS: u32 = HEAD_DIM / 16u;  // eights in half a head

// A head of q or k: where it begins in qkv, where the angles of its position begin, and the scale of its norm.
struct Turned { first: u32, turn: u32, scale: f32 }

// One eight of a head of v.
fn plain8(first: u32, piece: u32) -> Eight {
    return Eight(qkv[first + piece * 2u], qkv[first + piece * 2u + 1u]);
}

// One eight of a head of k, normalised and turned.
fn turned8(head: Turned, piece: u32) -> Eight {
    let in_half = piece % PARTS;
    let is_low = piece < PARTS;
    let partner = select(in_half, piece + PARTS, is_low);
    var out: array<vec4<f32>, 2>;
    for (var i = 0u; i < 2u; i++) {
        let own = qkv[head.first + piece * 2u + i] * head.scale * head_gain(true, piece * 2u + i);
        let other = qkv[head.first + partner * 2u + i] * head.scale * head_gain(true, partner * 2u + i);
        let cosine = angles[head.turn + in_half * 2u + i];
        let turned = other * angles[head.turn + (PARTS + in_half) * 2u + i];
        out[i] = fma(own, cosine, select(turned, -turned, is_low));
    }
    return Eight(out[0], out[1]);
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
        let place = (slot * KV_HEADS + head - HEADS - KV_HEADS) * params.capacity + position;
        write_value8(place, part, plain8(first, part), first);
        write_value8(place, part + PARTS, plain8(first, part + PARTS), first);
        return;
    }

    let is_key = head >= HEADS;
    let scale = head_scale(first);
    let turn = position * PARTS * 4u;
    var a: array<vec4<f32>, 2>;
    var b: array<vec4<f32>, 2>;
    for (var i = 0u; i < 2u; i++) {
        let x = qkv[low + i] * scale * head_gain(is_key, part * 2u + i);
        let z = qkv[high + i] * scale * head_gain(is_key, (part + PARTS) * 2u + i);
        let cosine = angles[turn + part * 2u + i];
        let sine = angles[turn + (PARTS + part) * 2u + i];
        a[i] = fma(x, cosine, -(z * sine));
        b[i] = fma(z, cosine, x * sine);
    }
    if is_key {
        let place = (slot * KV_HEADS + head - HEADS) * params.capacity + position;
        let whole = Turned(first, turn, scale);
        write_key8(place, part, Eight(a[0], a[1]), whole);
        write_key8(place, part + PARTS, Eight(b[0], b[1]), whole);
        return;
    }
    let out = (at.y * HEADS + head) * HEAD_DIM / 4u + part * 2u;
    query[out] = a[0];
    query[out + 1u] = a[1];
    query[out + PARTS * 2u] = b[0];
    query[out + PARTS * 2u + 1u] = b[1];
}
