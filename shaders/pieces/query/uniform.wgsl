// The rotated queries, where they fit a uniform (see input/uniform).
@group(0) @binding(AT_QUERY) var<uniform> query: array<vec4<f32>, QUERY_PIECES>;     // [rows, HEADS * HEAD_DIM]
