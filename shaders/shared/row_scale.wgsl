// Factor that brings a row to a common size: 1 / sqrt(mean(x^2) + eps) of the row that begins at piece `source` of x.
// Every lane of the workgroup gets it.
//
// Constants: LANES per row, a power of two.
var<workgroup> gathered: array<f32, LANES>;

fn row_scale(source: u32, pieces: u32, epsilon: f32, lane: u32) -> f32 {
    var squares = vec4(0.0);
    for (var i = lane; i < pieces; i += LANES) {
        let v = x[source + i];
        squares = fma(v, v, squares);
    }
    gathered[lane] = (squares.x + squares.y) + (squares.z + squares.w);
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half { gathered[lane] += gathered[lane + half]; }
    }
    workgroupBarrier();
    let mean = gathered[0] / f32(4u * pieces);
    return 1.0 / sqrt(mean + epsilon);
}
