// Operands of the gradients of `rope`.
struct RopeGradientParams { epsilon: f32 }
@group(0) @binding(0) var<uniform> params: RopeGradientParams;
@group(0) @binding(1) var<uniform> step: Step;

const ALL_HEADS: u32 = HEADS + 2u * KV_HEADS;
const TURNED_HEADS: u32 = HEADS + KV_HEADS;
const HALF: u32 = HEAD_DIM / 8u;                       // fours in half a head
