// Eight weights of one row, where their neighbours are not wanted.
fn weight8_of(row: u32, piece: u32, pieces: u32) -> Eight {
    let start = row_start(row / LANES, pieces);
    let lane = row % LANES;
    return weight8(scale_of(start, piece / SHARE, lane), start, piece, lane);
}
