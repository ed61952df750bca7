// Normalised rows as they are.
fn write_row(row: u32, source: u32, scale: f32, lane: u32) {
    for (var i = lane; i < params.pieces; i += LANES) { y[row * params.pieces + i] = normed(source, i, scale); }
}
