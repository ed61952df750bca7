//! The gated activation of the feed-forward layer.

use super::{Expected, Real};
use crate::comparison::{FLUSH, gamma};

/// `y = gate · sigmoid(gate) · up`.
///
/// **Shapes**: `gate_up` `[rows, 2·width]`, each row its gates and then its ups; the result `[rows, width]`.
/// **Bound**: WGSL's exp is 3 + 2|x| ULP; an error δ of `e = exp(−|gate|)` or `exp(−gate)` reaches `1/(1+e)` or
/// `e/(1+e)` as `sigmoid(−gate)·δ` at most. The sum, the division (2.5 ULP) and two multiplications add 6 roundings.
/// Where exp overflows or its result is flushed, sigmoid loses up to 2⁻¹²⁶ absolutely.
/// **Source**: Shazeer 2020, arXiv:2002.05202.
pub fn swiglu<X: Real>(gate_up: &[X], width: usize) -> Expected {
    let mut y = Expected::default();
    for row in gate_up.chunks_exact(2 * width) {
        let (gates, ups) = row.split_at(width);
        for (&gate, &up) in gates.iter().zip(ups) {
            let (gate, up): (f64, f64) = (gate.into(), up.into());
            let exp = (-gate.abs()).exp();
            let (sigmoid, complement) = if gate >= 0.0 {
                (1.0 / (1.0 + exp), exp / (1.0 + exp))
            } else {
                (exp / (1.0 + exp), 1.0 / (1.0 + exp))
            };
            let value = gate * sigmoid * up;
            let relative = gamma(complement * (3.0 + 2.0 * gate.abs()) + 6.0);
            // Sigmoid twice (exp, quotient), then either product, the inputs, and the result.
            let flush = FLUSH * (2.0 * (gate * up).abs() + 2.0 * up.abs() + 2.0 * gate.abs() + 1.0);
            y.push(value, value.abs() * relative + flush);
        }
    }
    y
}
