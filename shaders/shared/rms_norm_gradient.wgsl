// Parameters of the gradients of rms_norm.
struct RmsNormGradientParams { pieces: u32, epsilon: f32 }                // pieces = width / 4
