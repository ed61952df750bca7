// The rotated queries.
@group(0) @binding(AT_QUERY) var<storage, read> query: array<vec4<f32>>;             // [rows, HEADS * HEAD_DIM]
