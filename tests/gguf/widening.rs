//! Every element type: bit for bit what llama.cpp's Python package makes of the same blocks, and within rounding of the
//! format's formula, in f64 value by value.

use pard::checkpoint::{Checkpoint, StoredType};

use super::open_good;
use super::writer::Writer;
use crate::oracle::blocks::{bf16_value, f16_value, f32_value, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0};

/// Blocks per type, all in one row.
const BLOCKS: usize = 64;

/// A type: its number, name, values and bytes in a block, where its half-precision numbers lie, and the FNV-1a hash of
/// the little-endian f32 values that `gguf.quants.dequantize` (0.19) makes of [`blocks`].
struct Case {
    number: u32,
    name: &'static str,
    values: usize,
    bytes: usize,
    halves: &'static [usize],
    hash: u64,
    formula: fn(&[u8], usize) -> f64,
}

#[rustfmt::skip]
const CASES: [Case; 11] = [
    Case { number: 0, name: "F32", values: 1, bytes: 4, halves: &[2], hash: 0x19b3ef0b34b54654, formula: f32_value },
    Case { number: 1, name: "F16", values: 1, bytes: 2, halves: &[0], hash: 0xd87831328604e0d6, formula: f16_value },
    Case { number: 30, name: "BF16", values: 1, bytes: 2, halves: &[0], hash: 0xbd53495da9a6abff, formula: bf16_value },
    Case { number: 2, name: "Q4_0", values: 32, bytes: 18, halves: &[0], hash: 0xef9af2609feb2f8c, formula: q4_0 },
    Case { number: 3, name: "Q4_1", values: 32, bytes: 20, halves: &[0, 2], hash: 0x7a575623ceeeee90, formula: q4_1 },
    Case { number: 6, name: "Q5_0", values: 32, bytes: 22, halves: &[0], hash: 0x8ff76f7807592c68, formula: q5_0 },
    Case { number: 7, name: "Q5_1", values: 32, bytes: 24, halves: &[0, 2], hash: 0x0baf93804b6c1c5f, formula: q5_1 },
    Case { number: 8, name: "Q8_0", values: 32, bytes: 34, halves: &[0], hash: 0x8636f8c5f64fc1c6, formula: q8_0 },
    Case { number: 12, name: "Q4_K", values: 256, bytes: 144, halves: &[0, 2], hash: 0x31c05886dd8226, formula: q4_k },
    Case { number: 13, name: "Q5_K", values: 256, bytes: 176, halves: &[0, 2], hash: 0x600274f2dd56cde3,
           formula: q5_k },
    Case { number: 14, name: "Q6_K", values: 256, bytes: 210, halves: &[208], hash: 0xd7fe3308d4a37a47, formula: q6_k },
];

/// The blocks: a linear congruential generator's high bytes, its seed the type's number. One exponent bit of every
/// floating-point number is cleared, so that none is infinite.
fn blocks(case: &Case) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15 ^ u64::from(case.number);
    let mut bytes: Vec<u8> = (0..BLOCKS * case.bytes)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect();
    for block in bytes.chunks_exact_mut(case.bytes) {
        case.halves.iter().for_each(|at| block[at + 1] &= 0xBF);
    }
    bytes
}

fn read(case: &Case, blocks: Vec<u8>) -> Vec<f32> {
    let columns = BLOCKS * case.values;
    let writer = Writer::default().tensor("x", &[1, columns as u64], case.number, blocks);
    let (_file, gguf) = open_good(&writer.bytes());
    let mut values = vec![f32::NAN; columns];
    gguf.read_rows("x", 0..1, &mut values).expect("a row");
    values
}

#[test]
fn values_are_the_references_bit_for_bit() {
    for case in &CASES {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in read(case, blocks(case)).iter().flat_map(|value| value.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        assert_eq!(hash, case.hash, "{}", case.name);
    }
}

#[test]
fn values_follow_the_formulas() {
    for case in &CASES {
        let blocks = blocks(case);
        let values = read(case, blocks.clone());
        // Three roundings at most, each relative to a product of this size or to the sum.
        let largest = values.iter().fold(0.0f64, |largest, value| largest.max(f64::from(*value).abs()));
        for (index, value) in values.iter().enumerate() {
            let block = &blocks[index / case.values * case.bytes..][..case.bytes];
            let expected = (case.formula)(block, index % case.values);
            let error = (f64::from(*value) - expected).abs();
            let bound = 3.0 * f64::from(f32::EPSILON) * (expected.abs() + if case.values > 1 { largest } else { 0.0 });
            assert!(error <= bound, "{}[{index}]: {value}, expected {expected}, bound {bound}", case.name);
        }
    }
}

#[test]
fn types_are_named() {
    for case in &CASES {
        let writer = Writer::default().tensor("x", &[case.values as u64], case.number, vec![0; case.bytes]);
        let (_file, gguf) = open_good(&writer.bytes());
        let expected = match case.name {
            "F32" => StoredType::F32,
            "F16" => StoredType::F16,
            "BF16" => StoredType::Bf16,
            name => StoredType::Quantised(name),
        };
        assert_eq!(gguf.tensors()[0].stored, expected);
        assert_eq!(gguf.tensors()[0].bytes, case.bytes as u64);
    }
}
