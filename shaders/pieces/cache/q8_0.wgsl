// Layout of an 8-bit cache, whose key or value `place` is (slot * KV_HEADS + head) * capacity + position. Numbers are
// d * q for BLOCK of them at a time, q a signed byte of -127 ..= 127: HEAD_DIM / 4 words of q, then the d of each block.
// For keys, word i of KEY_TILE neighbouring positions lies side by side, so that attention's lanes, one a key, read
// contiguously; for values, the words of a row do.
//
// Constants: BLOCK, a multiple of 16 that divides HEAD_DIM.
const WORDS: u32 = HEAD_DIM / 4u + HEAD_DIM / BLOCK;

fn key_word(place: u32, word: u32) -> u32 {
    return (place / KEY_TILE * WORDS + word) * KEY_TILE + place % KEY_TILE;
}
fn value_word(place: u32, word: u32) -> u32 { return place * WORDS + word; }

// The word of the scale of the eight `piece`.
fn scale_word(piece: u32) -> u32 { return HEAD_DIM / 4u + piece * 8u / BLOCK; }
