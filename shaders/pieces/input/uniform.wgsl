// The rows that are multiplied, where they are few enough for a uniform: all lanes read the same value at a time, and
// some drivers read it once for all of them only from here.
@group(0) @binding(AT_INPUT) var<uniform> x: array<vec4<f32>, X_PIECES>;    // [rows, depth]
