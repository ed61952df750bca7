// What the gradients of rms_norm work on.
struct RmsNormGradientParams { pieces: u32, epsilon: f32 }                // pieces = width / 4
