// What attention and the merge of its parts work on.
struct AttentionParams {
    capacity: u32,   // positions of a slot
    splits: u32,     // parts that the scratch has room for
    scale: f32,      // 1 / sqrt(HEAD_DIM)
}
@group(0) @binding(0) var<uniform> params: AttentionParams;
@group(0) @binding(1) var<uniform> step: Step;

const LOWEST: f32 = -3.0e38;  // below every score; shaders may assume no infinity
