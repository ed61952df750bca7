//! The formats that weights have in files and on the device. Each is one file here, which says what its blocks hold and
//! turns them to and from floats, and one in shaders/pieces/weights/, which reads them on the device. Nothing here
//! needs a GPU.

mod bits;
mod blocks;
mod definition;
mod search;
mod six_bits;
mod sixteen_values;

use self::bits::MAX_WORDS;
pub(crate) use self::bits::PIECE;
use self::definition::{Definition, Packing};

/// Declares the formats: a variant of [`WeightFormat`] for each, and its file.
macro_rules! formats {
    ($($(#[$doc:meta])* $variant:ident in $file:ident),* $(,)?) => {
        $(mod $file;)*

        /// Format of weights.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum WeightFormat {
            $($(#[$doc])* $variant),*
        }

        impl WeightFormat {
            /// All of them.
            pub const ALL: &[WeightFormat] = &[$(WeightFormat::$variant),*];

            fn definition(self) -> &'static Definition {
                match self {
                    $(WeightFormat::$variant => &$file::DEFINITION),*
                }
            }
        }
    };
}

formats! {
    /// 16-bit brain float.
    Bf16 in bf16,
    /// IEEE half precision.
    F16 in f16,
    /// IEEE single precision.
    F32 in f32,
    /// Signed bytes, a scale for 32 of them: 8.5 bits a weight.
    Q8_0 in q8_0,
    /// 4-bit numbers, a scale for 32 of them: 4.5 bits a weight.
    Q4_0 in q4_0,
    /// 4-bit numbers, a scale and a minimum for 32 of them: 5 bits a weight.
    Q4_1 in q4_1,
    /// 5-bit numbers, a scale for 32 of them: 5.5 bits a weight.
    Q5_0 in q5_0,
    /// 5-bit numbers, a scale and a minimum for 32 of them: 6 bits a weight.
    Q5_1 in q5_1,
    /// 2-bit numbers, a 4-bit scale and minimum for 16 of them, whose scales serve 256: 2.6 bits a weight.
    Q2K in q2_k,
    /// 3-bit numbers, a 6-bit scale for 16 of them, whose scale serves 256: 3.4 bits a weight.
    Q3K in q3_k,
    /// 4-bit numbers, a 6-bit scale and minimum for 32 of them, whose scales serve 256: 4.5 bits a weight.
    Q4K in q4_k,
    /// The same with 5-bit numbers: 5.5 bits a weight.
    Q5K in q5_k,
    /// 6-bit numbers, an 8-bit scale for 16 of them, whose scale serves 256: 6.6 bits a weight.
    Q6K in q6_k,
    /// 4-bit numbers of sixteen values that lie unevenly, a scale for 32 of them: 4.5 bits a weight.
    Iq4Nl in iq4_nl,
    /// The same values, a 6-bit scale for 32 of them, whose scale serves 256: 4.25 bits a weight.
    Iq4Xs in iq4_xs,
}

impl WeightFormat {
    /// The format that llama.cpp or this crate calls `name`, in whatever case.
    pub fn named(name: &str) -> Option<WeightFormat> {
        WeightFormat::ALL.iter().copied().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Its name in lower case, as options have it.
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// Its name in files, in upper case.
    pub fn file_name(self) -> String {
        self.name().to_uppercase()
    }

    /// The number that GGUF gives it.
    pub fn gguf_number(self) -> u32 {
        self.definition().gguf_number
    }

    /// The formats of quantised weights.
    pub fn quantised() -> impl Iterator<Item = WeightFormat> {
        WeightFormat::ALL.iter().copied().filter(|format| format.is_quantised())
    }

    /// The format that comes closest to it in blocks of 32, for rows that its blocks of 256 do not fit.
    pub(crate) fn smaller_blocks(self) -> WeightFormat {
        self.definition().smaller_blocks.and_then(|smaller| WeightFormat::named(smaller.name)).unwrap_or(self)
    }

    /// The shader files that read it.
    pub(crate) fn shaders(self) -> &'static [&'static str] {
        self.definition().shaders
    }

    /// The shader files that read it as integers, beside [`WeightFormat::shaders`]; none if it is not quantised.
    pub(crate) fn integer_shaders(self) -> &'static [&'static str] {
        self.definition().packing.as_ref().map_or(&[], |packing| packing.integer_shaders)
    }

    /// Returns `true` if its weights are small integers with scales.
    pub fn is_quantised(self) -> bool {
        self.definition().packing.is_some()
    }

    /// Weights that only exist together: a row is a multiple of them wide.
    pub fn block_len(self) -> usize {
        self.definition().block[0]
    }

    /// Bytes of a row as files store it.
    pub fn stored_bytes(self, columns: usize) -> usize {
        let [weights, bytes] = self.definition().block;
        columns / weights * bytes
    }

    /// Bytes of a row on the device.
    pub fn row_bytes(self, columns: usize) -> usize {
        let [weights, bytes] = self.chunk();
        columns.div_ceil(weights) * bytes
    }

    /// Weights of a row that only exist together on the device, and the bytes that they take.
    fn chunk(self) -> [usize; 2] {
        let Definition { block: [_, bytes], packing, .. } = self.definition();
        match packing {
            Some(Packing { chunk: [weights, words], .. }) => [*weights, words * size_of::<u32>()],
            None => [PIECE, PIECE * bytes],
        }
    }

    /// 8-value pieces of a row that only exist together on the device, and the words that they take.
    pub(crate) fn chunk_pieces(self) -> [usize; 2] {
        let [weights, bytes] = self.chunk();
        [weights / PIECE, bytes / size_of::<u32>()]
    }

    /// Pieces that share a scale, as the shader has it; 1 where there is none.
    pub(crate) fn share(self) -> usize {
        self.definition().packing.as_ref().map_or(1, |packing| packing.share)
    }

    /// Bytes of a row that lie in one place on the device where rows are interleaved: a lane's load.
    pub(crate) fn unit_bytes(self) -> usize {
        if self.is_quantised() { size_of::<u32>() } else { self.chunk()[1] }
    }

    /// Turns a row as stored into the row that lies on the device, bit for bit the same weights.
    pub(crate) fn pack(self, stored: &[u8], out: &mut [u8]) {
        let Definition { block: [block_weights, block_bytes], packing, .. } = self.definition();
        let Some(Packing { pack, .. }) = packing else { return out.copy_from_slice(stored) };
        let [chunk_weights, chunk_bytes] = self.chunk();
        let stored = stored.chunks(chunk_weights / block_weights * block_bytes);
        for (stored, out) in stored.zip(out.chunks_exact_mut(chunk_bytes)) {
            let mut words = [0u32; MAX_WORDS];
            pack(stored, &mut words);
            for (word, bytes) in words.iter().zip(out.as_chunks_mut().0) {
                *bytes = word.to_le_bytes();
            }
        }
    }

    /// Writes `values` as files store them, rounding to nearest where the format is narrower; quantised as llama.cpp's
    /// reference does it.
    ///
    /// **Shapes**: whole blocks of values, and as many bytes as [`WeightFormat::stored_bytes`] says.
    pub fn store(self, values: &[f32], out: &mut [u8]) {
        (self.definition().store)(values, out);
    }

    /// Widens whole blocks to f32 as llama.cpp's reference does (`ggml-quants.c`): the same operations in the same order, so
    /// that the values are the same bit for bit.
    ///
    /// **Shapes**: as [`WeightFormat::store`].
    pub fn widen(self, stored: &[u8], out: &mut [f32]) {
        (self.definition().widen)(stored, out);
    }

    /// A bound of the magnitude of the weights of a row as stored.
    pub(crate) fn largest(self, stored: &[u8], columns: usize) -> f32 {
        if let Definition { block: [_, bytes], packing: Some(Packing { largest, .. }), .. } = self.definition() {
            return stored.chunks_exact(*bytes).map(largest).fold(0.0, f32::max);
        }
        let mut values = vec![0.0; columns];
        self.widen(stored, &mut values);
        values.iter().fold(0.0, |most, value| most.max(value.abs()))
    }
}
