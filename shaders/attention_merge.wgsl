// Merges the parts of `attention`, in order: with m the largest of both,
//   sum = sum * exp(m_sum - m) + part * exp(m_part - m), likewise l; out = sum / l.
//
// Constants: HEADS, HEAD_DIM, SPLIT, WINDOW; PARTS whose loads are in flight together.
// Dispatch: x over HEADS * HEAD_DIM / 4 in workgroups of 64, y over rows.
@group(0) @binding(2) var<storage, read> parts: array<vec4<f32>>;         // [rows, HEADS, splits, HEAD_DIM]
@group(0) @binding(3) var<storage, read> sums: array<vec2<f32>>;          // [rows, HEADS, splits]: m, l
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;     // [rows, HEADS * HEAD_DIM]

const CHUNKS: u32 = HEAD_DIM / 4u;

@compute @workgroup_size(64)
fn attention_merge(@builtin(global_invocation_id) at: vec3<u32>) {
    if at.x >= HEADS * CHUNKS { return; }
    let head = at.y * HEADS + at.x / CHUNKS;
    let dims = at.x % CHUNKS;
    let last = position_of(at.y) / SPLIT;
    var state = vec2(LOWEST, 0.0);
    var sum = vec4(0.0);
    for (var split = first_key(at.y) / SPLIT; split <= last; split += PARTS) {
        var part: array<vec2<f32>, PARTS>;
        var values: array<vec4<f32>, PARTS>;
        for (var j = 0u; j < PARTS; j++) {
            let from_part = head * params.splits + min(split + j, last);
            part[j] = sums[from_part];
            values[j] = parts[from_part * CHUNKS + dims];
        }
        for (var j = 0u; j < PARTS; j++) {
            if split + j <= last {
                let m = max(state.x, part[j].x);
                let kept = exp(state.x - m);
                let added = exp(part[j].x - m);
                sum = sum * kept + values[j] * added;
                state = vec2(m, state.y * kept + part[j].y * added);
            }
        }
    }
    out[at.y * HEADS * CHUNKS + at.x] = sum / state.y;
}
