// The gradients of the gains of q's and k's head normalisation, added to what is there: with dy turned back and s the
// head's scale,
//   dgain += sum over rows and heads of dy * x * s
// A lane sums every 64th head, in order; the lanes' sums are added in order.
//
// Constants: HEADS, KV_HEADS, HEAD_DIM, KEY_TILE.
// Dispatch: x over HEAD_DIM / 8 fours of half a head; y 0 for q, 1 for k.
@group(0) @binding(3) var<storage, read> qkv: array<vec4<f32>>;                       // [rows, ALL_HEADS * HEAD_DIM]
@group(0) @binding(6) var<storage, read> scales: array<f32>;                          // [rows, HEADS + KV_HEADS]
@group(0) @binding(7) var<storage, read_write> query_gain_gradient: array<vec4<f32>>; // [HEAD_DIM]
@group(0) @binding(8) var<storage, read_write> key_gain_gradient: array<vec4<f32>>;   // [HEAD_DIM]

var<workgroup> gathered: array<Turned, 64>;

@compute @workgroup_size(64)
fn rope_gain_gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group.x;
    let heads = select(HEADS, KV_HEADS, group.y == 1u);
    var sum = Turned(vec4(0.0), vec4(0.0));
    for (var n = lane; n < step.rows * heads; n += 64u) {
        let row = n / heads;
        let head = n % heads + group.y * HEADS;
        let dy = turned_back(row, head, i);
        let scale = scales[row * TURNED_HEADS + head];
        let x = (row * ALL_HEADS + head) * 2u * HALF + i;
        sum = Turned(fma(dy.low * scale, qkv[x], sum.low), fma(dy.high * scale, qkv[x + HALF], sum.high));
    }
    gathered[lane] = sum;
    workgroupBarrier();
    if lane != 0u { return; }
    for (var n = 1u; n < 64u; n++) {
        sum = Turned(sum.low + gathered[n].low, sum.high + gathered[n].high);
    }
    if group.y == 0u {
        query_gain_gradient[i] += sum.low;
        query_gain_gradient[i + HALF] += sum.high;
    } else {
        key_gain_gradient[i] += sum.low;
        key_gain_gradient[i + HALF] += sum.high;
    }
}
