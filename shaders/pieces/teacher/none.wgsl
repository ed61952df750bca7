// No teacher: divergence weights are not looked at.
const TEACHER: bool = false;
fn teacher(index: u32) -> f32 { return 0.0; }
