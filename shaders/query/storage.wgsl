// The rotated queries.
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;             // [rows, HEADS * HEAD_DIM]
