// What attention and the merge of its parts work on.
struct AttentionParams {
    capacity: u32,   // positions of a slot
    splits: u32,     // parts that the scratch has room for
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

const LOWEST: f32 = -3.0e38;  // below every score; shaders may assume no infinity
