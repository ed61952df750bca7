// Factor that brings a row to a common size: 1 / sqrt(mean(x^2) + eps) of the row that begins at piece `source` of x.
// Every lane of the workgroup gets it. Needs shared/reduce.wgsl.
fn row_scale(source: u32, pieces: u32, epsilon: f32, lane: u32) -> f32 {
    var squares = vec4(0.0);
    for (var i = lane; i < pieces; i += LANES) {
        let v = x[source + i];
        squares = fma(v, v, squares);
    }
    let sum = total(lane, (squares.x + squares.y) + (squares.z + squares.w));
    let mean = sum / f32(4u * pieces);
    return 1.0 / sqrt(mean + epsilon);
}
