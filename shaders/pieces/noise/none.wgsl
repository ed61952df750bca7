// The likeliest token is taken.
fn noised(row: u32, index: u32, logit: f32) -> f32 { return logit; }
