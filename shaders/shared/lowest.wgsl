// The lowest number there is: below every logit and score. Shaders may assume that there is no infinity.
const LOWEST: f32 = -3.4028234e38;
