// Merges what the workgroups of `attention` leave of a row, in order: with m the largest of both,
//   sum = sum * exp(m_sum - m) + part * exp(m_part - m), likewise l; out = sum / l.
// First the parts of each block, if SPAN is shorter than that, then the blocks.
//
// Constants: HEADS, HEAD_DIM, SPLIT, KEY_BLOCK, SPAN, WINDOW; AHEAD spans whose loads are in flight together; SLOTS blocks
// whose parts a workgroup merges side by side, if SPAN is shorter; WIDTH >= SLOTS * HEAD_DIM / 4 invocations.
// Dispatch: x heads if SPAN is shorter than KEY_BLOCK, else HEADS * HEAD_DIM / 4 in workgroups of WIDTH; y rows.
@group(0) @binding(2) var<storage, read> parts: array<vec4<f32>>;         // [rows, HEADS, entries, HEAD_DIM]
@group(0) @binding(3) var<storage, read> sums: array<vec2<f32>>;          // [rows, HEADS, entries]: m, l
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;     // [rows, HEADS * HEAD_DIM]

const CHUNKS: u32 = HEAD_DIM / 4u;
const PARTS: u32 = KEY_BLOCK / SPAN;    // of a block

struct Merged { state: vec2<f32>, sum: vec4<f32> }

var<workgroup> block_states: array<vec2<f32>, SLOTS>;
var<workgroup> block_sums: array<vec4<f32>, SLOTS * CHUNKS>;

// `so_far` and, if it `counts`, one more. Not a branch: compilers move loads to where their values are used.
fn add(so_far: Merged, state: vec2<f32>, sum: vec4<f32>, counts: bool) -> Merged {
    let factors = rescaling(so_far.state.x, state.x);
    let l = merged(so_far.state.y, state.y, factors);
    let both = vec2(max(so_far.state.x, state.x), l);
    return Merged(select(so_far.state, both, counts), select(so_far.sum, merged4(so_far.sum, sum, factors), counts));
}

// The spans `first ..= last` that the row sees.
fn spans_of(row: u32, head: u32, first: u32, last: u32, dims: u32) -> Merged {
    var all = Merged(vec2(LOWEST, 0.0), vec4(0.0));
    for (var span = first; span <= last; span += AHEAD) {
        var states: array<vec2<f32>, AHEAD>;
        var values: array<vec4<f32>, AHEAD>;
        for (var j = 0u; j < AHEAD; j++) {
            let at = entry(row, head, min(span + j, last));
            states[j] = sums[at];
            values[j] = parts[at * CHUNKS + dims];
        }
        for (var j = 0u; j < AHEAD; j++) { all = add(all, states[j], values[j], span + j <= last); }
    }
    return all;
}

@compute @workgroup_size(WIDTH)
fn attention_merge(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y;
    if row >= step.rows { return; }
    let first_span = first_key(row) / SPAN;
    let last_span = position_of(row) / SPAN;
    if SPAN == KEY_BLOCK {
        let at = group.x * WIDTH + lane;
        if at < HEADS * CHUNKS {
            let all = spans_of(row, at / CHUNKS, first_span, last_span, at % CHUNKS);
            out[row * HEADS * CHUNKS + at] = all.sum / all.state.y;
        }
    } else {
        let slot = lane / CHUNKS;
        let dims = lane % CHUNKS;
        let last = last_span / PARTS;
        var all = Merged(vec2(LOWEST, 0.0), vec4(0.0));
        for (var block = first_span / PARTS; block <= last; block += SLOTS) {
            let own = block + slot;
            if slot < SLOTS && own <= last {
                let end = min(own * PARTS + PARTS - 1u, last_span);
                let of_block = spans_of(row, group.x, max(own * PARTS, first_span), end, dims);
                block_sums[lane] = of_block.sum;
                if dims == 0u { block_states[slot] = of_block.state; }
            }
            workgroupBarrier();
            if slot == 0u {
                for (var j = 0u; j < min(SLOTS, last + 1u - block); j++) {
                    all = add(all, block_states[j], block_sums[j * CHUNKS + dims], true);
                }
            }
            workgroupBarrier();
        }
        if slot == 0u { out[(row * HEADS + group.x) * CHUNKS + dims] = all.sum / all.state.y; }
    }
}
