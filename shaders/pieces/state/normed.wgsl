// A state after a root-mean-square normalisation. Needs shared/row_scale.wgsl.
@group(0) @binding(AT_STATE_GAIN) var<storage, read> state_gains: array<vec4<f32>>;  // [width]
fn state_scale(source: u32, lane: u32) -> f32 { return row_scale(source, params.pieces, params.epsilon, lane); }
fn state_gain(i: u32) -> vec4<f32> { return state_gains[i]; }
