// Heads are rotated as they are.
fn head_scale(first: u32) -> f32 { return 1.0; }
fn head_gain(is_key: bool, piece: u32) -> vec4<f32> { return vec4(1.0); }
