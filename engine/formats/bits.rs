//! Words of the device's layout. A chunk is whole words: first the numbers, those of one 8-value piece in one word (or
//! two), then their scales. Bytes, and the bits that four-bit numbers lack, lie such that every other number of a piece
//! is a byte of one word: the operands of integer dot products (shaders/pieces/weights/integer.wgsl) are then a shift
//! and a mask away.

/// Weights per piece.
pub const PIECE: usize = 8;

/// Words of the longest chunk.
pub const MAX_WORDS: usize = 53;

/// The words of a chunk; a format fills as many as it has.
pub type Words = [u32; MAX_WORDS];

/// A word of numbers of `bits` bits, lowest first.
pub fn word(bits: usize, number: impl Fn(usize) -> u8) -> u32 {
    (0..32 / bits).fold(0, |word, index| word | u32::from(number(index)) << (index * bits))
}

/// Returns which number of 32 is byte `byte` of operand `operand` of eight: every other one of a piece.
pub fn operand(operand: usize, byte: usize) -> usize {
    operand / 2 * 8 + 2 * byte + operand % 2
}

/// A word whose byte `b` has bit `operand` from `bit` of the number that operand takes as its byte `b`.
pub fn single_bits(bit: impl Fn(usize) -> u8) -> u32 {
    word(1, |at| bit(operand(at % 8, at / 8)))
}

/// A word of 16 numbers of two bits: numbers 2 `b` and 2 `b` + 1 of the first piece, then of the second, are byte `b`.
pub fn bit_pairs(number: impl Fn(usize) -> u8) -> u32 {
    word(2, |at| number(operand(at % 4, at / 4)))
}

/// Words of the 4-bit numbers of 32 weights, which are 16 bytes: the low ones of all, then the high ones.
pub fn nibble_words(bytes: &[u8], words: &mut [u32]) {
    for (piece, out) in words[..4].iter_mut().enumerate() {
        *out = word(4, |at| nibble(bytes, 8 * piece + at));
    }
}

/// 4-bit number `index` of 32 that lie in 16 bytes, the low ones first.
fn nibble(bytes: &[u8], index: usize) -> u8 {
    bytes[index % 16] >> (index / 16 * 4) & 15
}

/// Words of the 4-bit numbers of 256 weights, where 64 share 32 bytes.
pub fn wide_nibble_words(bytes: &[u8], words: &mut [u32]) {
    for (piece, out) in words[..32].iter_mut().enumerate() {
        let (group, first) = (piece / 4, piece % 4 * 8);
        *out = word(4, |at| bytes[group / 2 * 32 + first + at] >> (group % 2 * 4) & 15);
    }
}

/// Words of bytes as they are.
pub fn byte_words(bytes: &[u8], words: &mut [u32]) {
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
}
