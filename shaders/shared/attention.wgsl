// Operands of attention and of the merge of its parts.
//
// Constants: HEADS, SPLIT, KEY_BLOCK, WINDOW.
struct AttentionParams {
    capacity: u32,   // positions of a slot
    entries: u32,    // rows times spans that the scratch has room for
    scale: f32,      // 1 / sqrt(HEAD_DIM)
}
@group(0) @binding(0) var<uniform> params: AttentionParams;
@group(0) @binding(1) var<uniform> step: Step;

// The first key that a row sees: WINDOW keys up to its own, or all of them if WINDOW is 0.
fn first_key(row: u32) -> u32 {
    if WINDOW == 0u { return 0u; }
    let end = position_of(row) + 1u;
    return end - min(end, WINDOW);
}

// Number of the keys `start .. start + count` before those that a row sees.
fn hidden(row: u32, start: u32, count: u32) -> u32 {
    if WINDOW == 0u { return 0u; }
    return min(max(first_key(row), start) - start, count);
}

// Number of the keys `start .. start + count` that a row sees, those before its window included.
fn visible(row: u32, start: u32, count: u32) -> u32 {
    if row >= step.rows { return 0u; }
    return min(max(position_of(row) + 1u, start) - start, count);
}

fn sees(row: u32, start: u32, count: u32) -> bool { return hidden(row, start, count) < visible(row, start, count); }

// Index of span number `span` of a query head in the scratch. A row has no more spans than there is room for; if a window
// passes over many, they take turns.
fn entry(row: u32, head: u32, span: u32) -> u32 {
    let room = params.entries / step.rows;
    return (row * HEADS + head) * room + span % room;
}

// Factors that bring sums for the largest scores `a` and `b` to the larger of them.
fn rescaling(a: f32, b: f32) -> vec2<f32> { return vec2(exp(a - max(a, b)), exp(b - max(a, b))); }

// `sum` and one more part, rescaled. A fused step leaves compilers no choice, so that all kernels round alike; plans
// without blocks never merge the same parts in two kernels.
fn merged(sum: f32, part: f32, factors: vec2<f32>) -> f32 {
    if KEY_BLOCK == SPLIT { return sum * factors.x + part * factors.y; }
    return fma(part, factors.y, sum * factors.x);
}
fn merged4(sum: vec4<f32>, part: vec4<f32>, factors: vec2<f32>) -> vec4<f32> {
    if KEY_BLOCK == SPLIT { return sum * factors.x + part * factors.y; }
    return fma(part, vec4(factors.y), sum * factors.x);
}
