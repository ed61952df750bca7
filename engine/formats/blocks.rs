//! Fields of GGUF's blocks.

use half::f16;

/// Pairs each block of `BYTES` with its `VALUES` values, to read it.
pub fn blocks<'a, const BYTES: usize, const VALUES: usize>(
    bytes: &'a [u8],
    out: &'a mut [f32],
) -> impl Iterator<Item = (&'a [u8; BYTES], &'a mut [f32; VALUES])> {
    bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<VALUES>().0)
}

/// Pairs each `VALUES` values with their block of `BYTES`, to write it.
pub fn blocks_mut<'a, const VALUES: usize, const BYTES: usize>(
    values: &'a [f32],
    out: &'a mut [u8],
) -> impl Iterator<Item = (&'a [f32; VALUES], &'a mut [u8; BYTES])> {
    values.as_chunks::<VALUES>().0.iter().zip(out.as_chunks_mut::<BYTES>().0)
}

/// The half-precision number at `at`.
pub fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Its bits.
pub fn half_bits(block: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Writes `value` in half precision, and returns it as it was rounded.
pub fn put_half(block: &mut [u8], at: usize, value: f32) -> f32 {
    let half = f16::from_f32(value);
    block[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

/// Writes 4-bit numbers, `number` of each of 32 values.
pub fn put_nibbles(values: &[f32; 32], bytes: &mut [u8], number: impl Fn(f32) -> u8) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = number(values[index]) & 15 | (number(values[index + 16]) & 15) << 4;
    }
}

/// Writes 5-bit numbers: their fifth bits first, then the others.
pub fn put_fives(values: &[f32; 32], bytes: &mut [u8], number: impl Fn(f32) -> u8) {
    let (fifths, nibbles) = bytes.split_at_mut(4);
    put_nibbles(values, nibbles, &number);
    fifths.fill(0);
    for (index, &value) in values.iter().enumerate() {
        fifths[index / 8] |= number(value) >> 4 << (index % 8);
    }
}

/// The two 5-bit numbers of byte `index`: nibbles, with the fifth bits of the four bytes at `at`.
pub fn fives(block: &[u8], at: usize, index: usize) -> (u8, u8) {
    let fifth = |bit: usize| (block[at + bit / 8] >> (bit % 8) & 1) << 4;
    let pair = block[at + 4 + index];
    (pair & 15 | fifth(index), pair >> 4 | fifth(index + 16))
}

/// Adds the low bits of number `at` of 256 to bytes that 64 of them share by 32.
pub fn put_wide_nibble(bytes: &mut [u8], at: usize, number: u8) {
    bytes[at / 64 * 32 + at % 32] |= (number & 15) << (at / 32 % 2 * 4);
}

/// Number `at` of 256 of two bits, where 128 share 32 bytes.
pub fn bit_pair(bytes: &[u8], at: usize) -> u8 {
    bytes[at / 128 * 32 + at % 32] >> (at / 32 % 4 * 2) & 3
}

/// Adds number `at` to such bytes.
pub fn put_bit_pair(bytes: &mut [u8], at: usize, number: u8) {
    bytes[at / 128 * 32 + at % 32] |= (number & 3) << (at / 32 % 4 * 2);
}
