// Layout of a cache of eights, whose key `place` is (slot * KV_HEADS + head) * capacity + position: pieces of 8
// dimensions with KEY_TILE neighbouring positions side by side, so that attention's lanes, one a key, read contiguously.
// Values are kept row by row.
fn key_index(place: u32, piece: u32) -> u32 {
    return (place / KEY_TILE * (HEAD_DIM / 8u) + piece) * KEY_TILE + place % KEY_TILE;
}
