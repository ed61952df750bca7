//! GGUF's blocks become chunks of whole words, which shaders/weights/ read: first the numbers, those of one 8-value piece
//! in one word (or two), then their scales. Nothing is rounded. Bytes, and the bits that four-bit numbers lack, lie such that
//! every other number of a piece is a byte of one word: the operands of integer dot products (shaders/weights/integer.wgsl)
//! are then a shift and a mask away. engine/model/gguf/element.rs describes the blocks and widens
//! them.

use half::f16;

/// Words of the longest chunk.
pub const MAX_WORDS: usize = 53;

/// The words of a chunk; a format fills as many as it has.
pub type Words = [u32; MAX_WORDS];

/// The bits of the half-precision number at `at`.
fn half_bits(block: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([block[at], block[at + 1]]))
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// A word of numbers of `bits` bits, lowest first.
fn word(bits: usize, number: impl Fn(usize) -> u8) -> u32 {
    (0..32 / bits).fold(0, |word, index| word | u32::from(number(index)) << (index * bits))
}

/// 4-bit number `index` of 32 that lie in 16 bytes, the low ones first.
fn nibble(bytes: &[u8], index: usize) -> u8 {
    bytes[index % 16] >> (index / 16 * 4) & 15
}

/// Returns which number of 32 is byte `byte` of operand `operand` of eight: every other one of a piece.
fn operand(operand: usize, byte: usize) -> usize {
    operand / 2 * 8 + 2 * byte + operand % 2
}

/// A word whose byte `b` has bit `operand` from `bit` of the number that operand takes as its byte `b`.
fn fifths(bit: impl Fn(usize) -> u8) -> u32 {
    word(1, |at| bit(operand(at % 8, at / 8)))
}

/// One or two blocks.
pub fn q8_0(stored: &[u8], words: &mut Words) {
    for (index, block) in stored.chunks_exact(34).enumerate() {
        for (at, out) in words[8 * index..][..8].iter_mut().enumerate() {
            *out = word(8, |byte| block[2 + operand(at, byte)]);
        }
        words[16] |= half_bits(block, 0) << (16 * index);
    }
}

/// One or two blocks.
pub fn q4_0(stored: &[u8], words: &mut Words) {
    for (index, block) in stored.chunks_exact(18).enumerate() {
        for (piece, out) in words[4 * index..][..4].iter_mut().enumerate() {
            *out = word(4, |at| nibble(&block[2..], 8 * piece + at));
        }
        words[8] |= half_bits(block, 0) << (16 * index);
    }
}

/// One block.
pub fn q4_1(block: &[u8], words: &mut Words) {
    for (piece, out) in words[..4].iter_mut().enumerate() {
        *out = word(4, |at| nibble(&block[4..], 8 * piece + at));
    }
    words[4] = half_bits(block, 0) | half_bits(block, 2) << 16;
}

/// One or two blocks.
pub fn q5_0(stored: &[u8], words: &mut Words) {
    for (index, block) in stored.chunks_exact(22).enumerate() {
        for (piece, out) in words[4 * index..][..4].iter_mut().enumerate() {
            *out = word(4, |at| nibble(&block[6..], 8 * piece + at));
        }
        words[8 + index] = fifths(|at| block[2 + at / 8] >> (at % 8) & 1);
        words[10] |= half_bits(block, 0) << (16 * index);
    }
}

/// One block.
pub fn q5_1(block: &[u8], words: &mut Words) {
    for (piece, out) in words[..4].iter_mut().enumerate() {
        *out = word(4, |at| nibble(&block[8..], 8 * piece + at));
    }
    words[4] = fifths(|at| block[4 + at / 8] >> (at % 8) & 1);
    words[5] = half_bits(block, 0) | half_bits(block, 2) << 16;
}

/// The 6-bit scale and minimum of group `group` of eight, from the 12 bytes that hold them.
fn six_bits(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (packed[group] & 63, packed[group + 4] & 63);
    }
    (packed[group + 4] & 15 | packed[group - 4] >> 6 << 4, packed[group + 4] >> 4 | packed[group] >> 6 << 4)
}

/// The low bits of 256 weights, where 64 share 32 bytes.
fn wide_nibbles(bytes: &[u8], words: &mut [u32]) {
    for (piece, out) in words[..32].iter_mut().enumerate() {
        let (group, first) = (piece / 4, piece % 4 * 8);
        *out = word(4, |at| bytes[group / 2 * 32 + first + at] >> (group % 2 * 4) & 15);
    }
}

/// The four words of the scales of 256 weights, which are a block's first 16 bytes.
fn six_bit_scales(block: &[u8], words: &mut [u32]) {
    let numbers = |group| six_bits(&block[4..16], group);
    words[0] = half_bits(block, 0) | half_bits(block, 2) << 16;
    words[1] = word(4, |group| numbers(group).0 & 15);
    words[2] = word(4, |group| numbers(group).1 & 15);
    words[3] = word(2, |at| if at < 8 { numbers(at).0 >> 4 } else { numbers(at - 8).1 >> 4 });
}

/// One block.
pub fn q4_k(block: &[u8], words: &mut Words) {
    wide_nibbles(&block[16..], words);
    six_bit_scales(block, &mut words[32..]);
}

/// One block.
pub fn q5_k(block: &[u8], words: &mut Words) {
    wide_nibbles(&block[48..], words);
    // Bit `group` of byte `index` is the fifth of weight `index` of the group.
    for (group, out) in words[32..40].iter_mut().enumerate() {
        *out = fifths(|index| block[16 + index] >> group & 1);
    }
    six_bit_scales(block, &mut words[40..]);
}

/// One block.
pub fn q6_k(block: &[u8], words: &mut Words) {
    // As in the block: halves of 128 weights, in them four runs of 32; runs 0 and 2 share low bytes, as 1 and 3 do.
    let low = |at: usize| {
        let (section, quarter, index) = (at / 128, at / 32 % 4, at % 32);
        block[section * 64 + quarter % 2 * 32 + index] >> (quarter / 2 * 4) & 15
    };
    let high = |at: usize| block[128 + at / 128 * 32 + at % 32] >> (at / 32 % 4 * 2) & 3;
    for (piece, out) in words[..32].iter_mut().enumerate() {
        *out = word(4, |at| low(8 * piece + at));
    }
    for (half, out) in words[32..48].iter_mut().enumerate() {
        *out = word(2, |at| high(16 * half + operand(at % 4, at / 4)));
    }
    for (word, bytes) in words[48..52].iter_mut().zip(block[192..208].as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words[52] = half_bits(block, 208);
}

/// A bound of the magnitude of a block's weights; the same for each format below.
pub fn largest_q8_0(block: &[u8]) -> f32 {
    128.0 * half(block, 0).abs()
}

pub fn largest_q4_0(block: &[u8]) -> f32 {
    8.0 * half(block, 0).abs()
}

pub fn largest_q5_0(block: &[u8]) -> f32 {
    16.0 * half(block, 0).abs()
}

pub fn largest_q4_1(block: &[u8]) -> f32 {
    between(half(block, 0), half(block, 2), 15.0)
}

pub fn largest_q5_1(block: &[u8]) -> f32 {
    between(half(block, 0), half(block, 2), 31.0)
}

pub fn largest_q4_k(block: &[u8]) -> f32 {
    largest_of_groups(block, 15.0)
}

pub fn largest_q5_k(block: &[u8]) -> f32 {
    largest_of_groups(block, 31.0)
}

pub fn largest_q6_k(block: &[u8]) -> f32 {
    let scale = block[192..208].iter().map(|&scale| (scale as i8).unsigned_abs()).max().unwrap_or_default();
    32.0 * half(block, 208).abs() * f32::from(scale)
}

fn largest_of_groups(block: &[u8], most: f32) -> f32 {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let groups = (0..8).map(|group| six_bits(&block[4..16], group));
    groups.map(|(s, m)| between(scale * f32::from(s), -minimum * f32::from(m), most)).fold(0.0, f32::max)
}

/// The largest magnitude of `scale * q + minimum` for q from 0 to `most`.
fn between(scale: f32, minimum: f32, most: f32) -> f32 {
    minimum.abs().max((most * scale + minimum).abs())
}
