//! Every element type: bit for bit what llama.cpp's Python package makes of the same blocks, and within rounding of the
//! format's formula, in f64 value by value.

use pard::WeightFormat;
use pard::checkpoint::Checkpoint;

use super::open_good;
use super::writer::Writer;
use crate::oracle::blocks::{CASES, Case};

/// Blocks per type, all in one row.
const BLOCKS: usize = 64;

/// The blocks: a linear congruential generator's high bytes, its seed the type's number. One exponent bit of every
/// floating-point number is cleared, so that none is infinite.
fn blocks(case: &Case) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15 ^ u64::from(case.number);
    let mut bytes: Vec<u8> = (0..BLOCKS * case.block[1])
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect();
    for block in bytes.chunks_exact_mut(case.block[1]) {
        case.halves.iter().for_each(|at| block[at + 1] &= 0xBF);
    }
    bytes
}

fn read(case: &Case, blocks: Vec<u8>) -> Vec<f32> {
    let columns = BLOCKS * case.block[0];
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
        assert_eq!(hash, case.widened, "{}", case.name);
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
            let block = &blocks[index / case.block[0] * case.block[1]..][..case.block[1]];
            let expected = (case.value)(block, index % case.block[0]);
            let error = (f64::from(*value) - expected).abs();
            let bound =
                3.0 * f64::from(f32::EPSILON) * (expected.abs() + if case.block[0] > 1 { largest } else { 0.0 });
            assert!(error <= bound, "{}[{index}]: {value}, expected {expected}, bound {bound}", case.name);
        }
    }
}

#[test]
fn types_are_named() {
    for case in &CASES {
        let writer = Writer::default().tensor("x", &[case.block[0] as u64], case.number, vec![0; case.block[1]]);
        let (_file, gguf) = open_good(&writer.bytes());
        assert_eq!(gguf.tensors()[0].stored, case.format);
        assert_eq!(gguf.tensors()[0].bytes, case.block[1] as u64);
    }
}

#[test]
fn every_format_has_a_case() {
    for &format in WeightFormat::ALL {
        let case = crate::oracle::blocks::case(format);
        let [values, bytes] = case.block;
        assert_eq!((format.block_len(), format.stored_bytes(values)), (values, bytes), "{format:?}");
        assert_eq!((format.gguf_number(), format.file_name().as_str()), (case.number, case.name));
        assert_eq!(WeightFormat::named(case.name), Some(format));
    }
    assert_eq!(CASES.len(), WeightFormat::ALL.len());
}
