//! Rows as integers with a step for each 32 values.

/// Maximum error of a value in a block of 32, relative to the block's largest magnitude. Half a step is 1/65278 of it in
/// two signed bytes, 1/254 in one; two divisions that are off by 2.5 units in the last place make it more.
pub fn error(planes: u32) -> f64 {
    if planes == 2 { 1.0 / 62_000.0 } else { 1.0 / 250.0 }
}

/// The largest magnitude of each block of 32 values.
pub fn largest(x: &[f32]) -> Vec<f64> {
    x.chunks(32).map(|block| block.iter().fold(0.0, |most: f64, &value| most.max(f64::from(value).abs()))).collect()
}

/// Data of a block beside its values.
pub struct Rest {
    /// Size of a step.
    pub size: f32,
    /// The first 16 values and the last 16, added up, in steps.
    pub sums: [i32; 2],
    /// All values, added up.
    pub total: f32,
}

/// The blocks that the kernel wrote for a row, as it packs them: `[blocks, 2 * planes + 1]` vectors of four words. Each
/// value, and what each block holds beside them.
pub fn unpack(words: &[u32], planes: usize) -> (Vec<f64>, Vec<Rest>) {
    let mut values = Vec::new();
    let mut rest = Vec::new();
    for block in words.chunks(4 * (2 * planes + 1)) {
        let byte = |plane: usize, index: usize| {
            // Words come in pairs for eight values: those of even index, those of odd.
            let word = block[8 * plane + index / 8 * 2 + index % 2];
            i32::from((word >> (8 * (index % 8 / 2))) as u8 as i8)
        };
        let last = &block[8 * planes..];
        let size = f32::from_bits(last[0]);
        for index in 0..32 {
            let steps = if planes == 2 { 256 * byte(0, index) + byte(1, index) } else { byte(0, index) };
            values.push(f64::from(steps) * f64::from(size));
        }
        rest.push(Rest { size, sums: [last[1] as i32, last[2] as i32], total: f32::from_bits(last[3]) });
    }
    (values, rest)
}
