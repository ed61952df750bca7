//! The bytes of a cache, whose layout is said here a second time: keys in tiles of 64 positions, values row by row.
//! Both are given as `[heads, capacity, head_dim]`, where heads are those of all slots and the capacity a multiple of 64.

use pard::low_level::gpu::CacheFormat;

use crate::ops::POISON;
use crate::oracle::kv_cache::quantised;

const TILE: usize = 64;

/// The shape of a buffer: of keys or of values.
#[derive(Clone, Copy)]
pub struct Layout {
    pub format: CacheFormat,
    pub is_keys: bool,
    pub head_dim: usize,
}

impl Layout {
    /// Index of a number or, in 8 bits, a word: the `at`-th of `count` pieces of `width` that a row is made of.
    fn index(&self, row: usize, [at, count, width]: [usize; 3]) -> usize {
        let (piece, rest) = (at / width, at % width);
        if self.is_keys {
            ((row / TILE * count + piece) * TILE + row % TILE) * width + rest
        } else {
            (row * count + piece) * width + rest
        }
    }

    /// Pieces of a row, and how many elements each has.
    fn pieces(&self) -> [usize; 2] {
        match self.format {
            CacheFormat::Q8_0 => [self.head_dim / 4 + self.head_dim / CacheFormat::block(self.head_dim), 1],
            _ => [self.head_dim / 8, 8],
        }
    }

    /// The bytes that hold `values`, NaN where they are NaN.
    pub fn encoded(&self, values: &[f32]) -> Vec<u8> {
        let [count, width] = self.pieces();
        let mut words = vec![0u32; values.len() / self.head_dim * count * width];
        for (row, values) in values.chunks(self.head_dim).enumerate() {
            for (at, word) in self.row_words(values).into_iter().enumerate() {
                words[self.index(row, [at, count, width])] = word;
            }
        }
        match self.format {
            CacheFormat::F16 => words.iter().flat_map(|&word| (word as u16).to_le_bytes()).collect(),
            _ => words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        }
    }

    fn row_words(&self, values: &[f32]) -> Vec<u32> {
        match self.format {
            CacheFormat::F32 => values.iter().map(|value| value.to_bits()).collect(),
            CacheFormat::F16 => values.iter().map(|&value| half::f16::from_f32(value).to_bits().into()).collect(),
            CacheFormat::Q8_0 => {
                let blocks = values.chunks(CacheFormat::block(self.head_dim)).map(|block| {
                    let (numbers, scale) = quantised(block);
                    (numbers, if block.iter().any(|value| value.is_nan()) { f32::NAN } else { scale })
                });
                let (numbers, scales): (Vec<_>, Vec<_>) = blocks.unzip();
                let bytes: Vec<u8> = numbers.concat().into_iter().map(|number| number as u8).collect();
                let words = bytes.chunks(4).map(|four| u32::from_le_bytes(four.try_into().expect("four bytes")));
                words.chain(scales.into_iter().map(f32::to_bits)).collect()
            }
        }
    }

    /// The words of each row, `[heads · capacity, words of a row]`: numbers' bits, or in 8 bits words and scales.
    pub fn rows(&self, bytes: &[u8]) -> Vec<Vec<u32>> {
        let [count, width] = self.pieces();
        let words: Vec<u32> = match self.format {
            CacheFormat::F16 => bytes.chunks(2).map(|two| u16::from_le_bytes([two[0], two[1]]).into()).collect(),
            _ => bytes.chunks(4).map(|four| u32::from_le_bytes(four.try_into().expect("four bytes"))).collect(),
        };
        let row = |row| (0..count * width).map(|at| words[self.index(row, [at, count, width])]).collect();
        (0..words.len() / (count * width)).map(row).collect()
    }

    /// Decodes `bytes`; untouched poison is kept, bit for bit.
    pub fn decoded(&self, bytes: &[u8]) -> Vec<f32> {
        let block = CacheFormat::block(self.head_dim);
        let value = |row: &[u32], dim: usize| match self.format {
            CacheFormat::F32 => f32::from_bits(row[dim]),
            CacheFormat::F16 if row[dim] == u32::from(u16::MAX) => f32::from_bits(POISON),
            CacheFormat::F16 => half::f16::from_bits(row[dim] as u16).to_f32(),
            CacheFormat::Q8_0 => {
                let (word, scale) = (row[dim / 4], row[self.head_dim / 4 + dim / block]);
                if word == POISON && scale == POISON {
                    return f32::from_bits(POISON);
                }
                f32::from(word.to_le_bytes()[dim % 4] as i8) * f32::from_bits(scale)
            }
        };
        self.rows(bytes).iter().flat_map(|row| (0..self.head_dim).map(move |dim| value(row, dim))).collect()
    }
}
