//! The formats that weights may have on the device: shaders/weights/.

use super::matrix::PIECE;
use super::quantised::{pack, quantise};

/// Format of weights on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// 16-bit brain float.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// Signed bytes, a scale for 32 of them: 8.5 bits a weight.
    Q8_0,
    /// 4-bit numbers, a scale for 32 of them: 4.5 bits a weight.
    Q4_0,
    /// 4-bit numbers, a scale and a minimum for 32 of them: 5 bits a weight.
    Q4_1,
    /// 5-bit numbers, a scale for 32 of them: 5.5 bits a weight.
    Q5_0,
    /// 5-bit numbers, a scale and a minimum for 32 of them: 6 bits a weight.
    Q5_1,
    /// 4-bit numbers, a 6-bit scale and minimum for 32 of them, whose scales serve 256: 4.5 bits a weight.
    Q4K,
    /// The same with 5-bit numbers: 5.5 bits a weight.
    Q5K,
    /// 6-bit numbers, an 8-bit scale for 16 of them, whose scale serves 256: 6.6 bits a weight.
    Q6K,
}

/// Properties of a format, except for its arithmetic.
struct Traits {
    name: &'static str,
    file: &'static str,
    /// Weights of a block, and its bytes, as files store them: GGUF's blocks, or single little-endian numbers.
    block: [usize; 2],
    /// Weights of a chunk, and its bytes, as they lie on the device. A row is made of whole chunks.
    chunk: [usize; 2],
    /// Bytes of a row that stay together where rows are interleaved: a lane's load.
    unit: usize,
    /// Pieces that share a scale; 1 where there is none.
    share: usize,
    blocks: Option<Blocks>,
}

/// Host functions for blocks of quantised weights.
struct Blocks {
    /// Floats to blocks, a row.
    store: fn(&[f32], &mut [u8]),
    /// The blocks of a chunk to its words.
    pack: fn(&[u8], &mut pack::Words),
    /// A bound of the magnitude of a block's weights.
    largest: fn(&[u8]) -> f32,
}

impl WeightFormat {
    /// All of them.
    pub const ALL: [WeightFormat; 11] = [
        WeightFormat::Bf16,
        WeightFormat::F16,
        WeightFormat::F32,
        WeightFormat::Q8_0,
        WeightFormat::Q4_0,
        WeightFormat::Q4_1,
        WeightFormat::Q5_0,
        WeightFormat::Q5_1,
        WeightFormat::Q4K,
        WeightFormat::Q5K,
        WeightFormat::Q6K,
    ];

    fn traits(self) -> Traits {
        let float = |name, file, bytes| Traits {
            name,
            file,
            block: [1, bytes],
            chunk: [PIECE, PIECE * bytes],
            unit: PIECE * bytes,
            share: 1,
            blocks: None,
        };
        let quantised = |name, file, block, [weights, words]: [usize; 2], share, blocks| Traits {
            name,
            file,
            block,
            chunk: [weights, words * size_of::<u32>()],
            unit: size_of::<u32>(),
            share,
            blocks: Some(blocks),
        };
        match self {
            WeightFormat::Bf16 => float("bf16", "weights/bf16", 2),
            WeightFormat::F16 => float("f16", "weights/f16", 2),
            WeightFormat::F32 => float("f32", "weights/f32", 4),
            WeightFormat::Q8_0 => {
                let blocks = Blocks { store: quantise::q8_0, pack: pack::q8_0, largest: pack::largest_q8_0 };
                quantised("q8_0", "weights/q8_0", [32, 34], [64, 17], 4, blocks)
            }
            WeightFormat::Q4_0 => {
                let blocks = Blocks { store: quantise::q4_0, pack: pack::q4_0, largest: pack::largest_q4_0 };
                quantised("q4_0", "weights/q4_0", [32, 18], [64, 9], 4, blocks)
            }
            WeightFormat::Q4_1 => {
                let blocks = Blocks { store: quantise::q4_1, pack: pack::q4_1, largest: pack::largest_q4_1 };
                quantised("q4_1", "weights/q4_1", [32, 20], [32, 5], 4, blocks)
            }
            WeightFormat::Q5_0 => {
                let blocks = Blocks { store: quantise::q5_0, pack: pack::q5_0, largest: pack::largest_q5_0 };
                quantised("q5_0", "weights/q5_0", [32, 22], [64, 11], 4, blocks)
            }
            WeightFormat::Q5_1 => {
                let blocks = Blocks { store: quantise::q5_1, pack: pack::q5_1, largest: pack::largest_q5_1 };
                quantised("q5_1", "weights/q5_1", [32, 24], [32, 6], 4, blocks)
            }
            WeightFormat::Q4K => {
                let blocks = Blocks { store: quantise::q4_k, pack: pack::q4_k, largest: pack::largest_q4_k };
                quantised("q4_k", "weights/q4_k", [256, 144], [256, 36], 8, blocks)
            }
            WeightFormat::Q5K => {
                let blocks = Blocks { store: quantise::q5_k, pack: pack::q5_k, largest: pack::largest_q5_k };
                quantised("q5_k", "weights/q5_k", [256, 176], [256, 44], 8, blocks)
            }
            WeightFormat::Q6K => {
                let blocks = Blocks { store: quantise::q6_k, pack: pack::q6_k, largest: pack::largest_q6_k };
                quantised("q6_k", "weights/q6_k", [256, 210], [256, 53], 8, blocks)
            }
        }
    }

    /// The format that llama.cpp or this crate calls `name`, in whatever case.
    pub fn named(name: &str) -> Option<WeightFormat> {
        WeightFormat::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        self.traits().name
    }

    /// The shader files that read it.
    pub(super) fn files(self) -> Vec<&'static str> {
        let family: &[&str] = match self {
            WeightFormat::Bf16 | WeightFormat::F16 | WeightFormat::F32 => &["weights/unscaled"],
            WeightFormat::Q4K | WeightFormat::Q5K => &["weights/quantised", "weights/six_bits"],
            _ => &["weights/quantised"],
        };
        [family, &[self.traits().file]].concat()
    }

    /// The shader files that read it as integers, if it is quantised.
    pub(super) fn integer_files(self) -> Vec<&'static str> {
        let own = match self {
            WeightFormat::Bf16 | WeightFormat::F16 | WeightFormat::F32 => return Vec::new(),
            WeightFormat::Q8_0 => &["weights/q8_0_integer"][..],
            WeightFormat::Q4_0 => &["weights/q4_0_integer"],
            WeightFormat::Q4_1 => &["weights/q4_1_integer"],
            WeightFormat::Q5_0 => &["weights/q5_0_integer"],
            WeightFormat::Q5_1 => &["weights/q5_1_integer"],
            WeightFormat::Q4K => &["weights/six_bits_integer", "weights/q4_k_integer"],
            WeightFormat::Q5K => &["weights/six_bits_integer", "weights/q5_k_integer"],
            WeightFormat::Q6K => &["weights/q6_k_integer"],
        };
        [&self.files()[..], &["weights/integer"], own].concat()
    }

    /// Returns `true` if its weights are small integers with scales.
    pub fn is_quantised(self) -> bool {
        self.traits().blocks.is_some()
    }

    /// Weights that only exist together: a row is a multiple of them wide.
    pub fn block_len(self) -> usize {
        self.traits().block[0]
    }

    /// Bytes of a row as files store it.
    pub fn stored_bytes(self, columns: usize) -> usize {
        let [weights, bytes] = self.traits().block;
        columns / weights * bytes
    }

    /// Bytes of a row on the device.
    pub fn row_bytes(self, columns: usize) -> usize {
        let [weights, bytes] = self.traits().chunk;
        columns.div_ceil(weights) * bytes
    }

    /// Pieces of a row that only exist together on the device, and the words that they take.
    pub(super) fn chunk(self) -> [usize; 2] {
        let [weights, bytes] = self.traits().chunk;
        [weights / PIECE, bytes / size_of::<u32>()]
    }

    /// Pieces that share a scale, as the shader has it.
    pub(super) fn share(self) -> usize {
        self.traits().share
    }

    /// Bytes of a row that lie in one place on the device.
    pub(super) fn unit_bytes(self) -> usize {
        self.traits().unit
    }

    /// Turns a row as stored into the row that lies on the device, bit for bit the same weights.
    pub(super) fn pack(self, stored: &[u8], out: &mut [u8]) {
        let Traits { block: [block_weights, block_bytes], chunk: [chunk_weights, chunk_bytes], blocks, .. } =
            self.traits();
        let Some(Blocks { pack, .. }) = blocks else { return out.copy_from_slice(stored) };
        let stored = stored.chunks(chunk_weights / block_weights * block_bytes);
        for (stored, out) in stored.zip(out.chunks_exact_mut(chunk_bytes)) {
            let mut words = [0u32; pack::MAX_WORDS];
            pack(stored, &mut words);
            for (word, bytes) in words.iter().zip(out.as_chunks_mut().0) {
                *bytes = word.to_le_bytes();
            }
        }
    }

    /// Writes `values` as files store them, rounding to nearest where the format is narrower; quantised as llama.cpp's
    /// reference does it.
    pub fn store(self, values: &[f32], out: &mut [u8]) {
        let sixteen = |out: &mut [u8], convert: fn(f32) -> u16| {
            for (value, bytes) in values.iter().zip(out.as_chunks_mut::<2>().0) {
                *bytes = convert(*value).to_le_bytes();
            }
        };
        if let Some(Blocks { store, .. }) = self.traits().blocks {
            return store(values, out);
        }
        match self {
            WeightFormat::Bf16 => sixteen(out, |value| half::bf16::from_f32(value).to_bits()),
            WeightFormat::F16 => sixteen(out, |value| half::f16::from_f32(value).to_bits()),
            _ => {
                for (value, bytes) in values.iter().zip(out.as_chunks_mut::<4>().0) {
                    *bytes = value.to_le_bytes();
                }
            }
        }
    }

    /// Widens a row of floats that lies on the device.
    pub(super) fn widen_floats(self, bytes: &[u8], out: &mut [f32]) {
        let sixteen = |out: &mut [f32], convert: fn(u16) -> f32| {
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = convert(u16::from_le_bytes(*bytes));
            }
        };
        match self {
            WeightFormat::Bf16 => sixteen(out, |bits| half::bf16::from_bits(bits).to_f32()),
            WeightFormat::F16 => sixteen(out, |bits| half::f16::from_bits(bits).to_f32()),
            _ => {
                for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
        }
    }

    /// A bound of the magnitude of the weights of a row as stored.
    pub(super) fn largest(self, stored: &[u8], columns: usize) -> f32 {
        let Traits { block: [_, block_bytes], blocks, .. } = self.traits();
        if let Some(Blocks { largest, .. }) = blocks {
            return stored.chunks_exact(block_bytes).map(largest).fold(0.0, f32::max);
        }
        let mut values = vec![0.0; columns];
        self.widen_floats(stored, &mut values);
        values.iter().fold(0.0, |most, value| most.max(value.abs()))
    }
}
