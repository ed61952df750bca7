// One id has a row of its own in place of the table's, which need not have one for it.
@group(0) @binding(AT_MASK_ROW) var<storage, read> mask_row: array<vec4<f32>>;      // [width]

fn is_masked(id: u32, piece: u32, out: u32) -> bool {
    if id != params.mask { return false; }
    // If the table is in parts, the first one writes it.
    if params.first_out == 0u {
        y[out] = mask_row[2u * piece];
        y[out + 1u] = mask_row[2u * piece + 1u];
    }
    return true;
}
