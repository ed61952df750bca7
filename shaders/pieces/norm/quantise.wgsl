// Normalised rows, and for the first X_ROWS the integers too, as quantise_rows.wgsl would make them: for the next products.
@group(0) @binding(AT_INTEGERS) var<storage, read_write> integers: array<vec4<u32>>;    // [padded, X_ROWS, 2 * PLANES + 1]

fn write_row(row: u32, source: u32, scale: f32, lane: u32) {
    let blocks = params.pieces / 8u;
    for (var block = lane; block < (blocks + 1u) / 2u * 2u; block += LANES) {
        var values: array<vec4<f32>, 8>;
        if block < blocks {
            for (var i = 0u; i < 8u; i++) {
                values[i] = normed(source, block * 8u + i, scale);
                y[row * params.pieces + block * 8u + i] = values[i];
            }
        }
        if row < X_ROWS { store_block(values, block, row); }
    }
}
