// A state as it is in the residual stream.
fn state_scale(source: u32, lane: u32) -> f32 { return 1.0; }
fn state_gain(i: u32) -> vec4<f32> { return vec4(1.0); }
