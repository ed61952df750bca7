//! Expected results of every operation: f64, straight from the formula, no tiling, with a derived bound per element. Only
//! plain types are shared with the engine. Each function is generic over f32 and f64 input: kernels are compared with the
//! f32 values they were given, the whole forward pass is chained in f64 without rounding.

pub mod accept;
pub mod argmax;
pub mod attention;
pub mod blocks;
pub mod embedding;
pub mod experts;
pub mod gradients;
pub mod gumbel;
pub mod kv_cache;
pub mod log_probabilities;
pub mod matmul;
pub mod matmul_integer;
pub mod penalties;
pub mod probabilities;
pub mod quantise_rows;
pub mod remember;
pub mod rms_norm;
pub mod rope;
pub mod rotary_table;
pub mod speculative;
pub mod swiglu;
pub mod transformer;
pub mod truncation;

/// Expected result of an operation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expected {
    /// The value of each element.
    pub values: Vec<f64>,
    /// Maximum error of an f32 kernel, for each element.
    pub bound: Vec<f64>,
}

impl Expected {
    /// Appends one element.
    pub fn push(&mut self, value: f64, bound: f64) {
        self.values.push(value);
        self.bound.push(bound);
    }
}

/// f32 or f64.
pub trait Real: Copy + Into<f64> {}

impl<T: Copy + Into<f64>> Real for T {}
