//! The gradient of the gated activation.

use crate::comparison::{FLUSH, gamma};
use crate::oracle::swiglu::swiglu;
use crate::oracle::{Expected, Real};

/// For `y = g·σ(g)·u`: `dg = dy·u·σ·(1 + g·(1 − σ))`, `du = dy·g·σ`.
///
/// **Shapes**: `x` `[rows, 2·width]`, each row its gates and then its ups, and the result likewise; `dy` `[rows, width]`.
/// **Bound**: `du` is swiglu of `g` and `dy`. In `dg`, an error δ of `e = exp(−g)`, WGSL's 3 + 2|g| ULP, reaches σ as
/// `(1 − σ)·δ` and `1 − σ` as `σ·δ`, together δ; σ has 3.5 roundings more (sum and division), `1 − σ` one more than
/// that, and two products, a sum and three products follow: 13, relative to the sum of both terms' magnitudes, for these
/// may cancel. Where exp is flushed or its argument clamped, σ or `1 − σ` loses up to 2⁻¹²⁶ absolutely; so may each
/// product and each operand.
/// **Source**: the derivative of Shazeer 2020, arXiv:2002.05202.
pub fn swiglu_gradient<X: Real>(x: &[X], dy: &[X], width: usize) -> Expected {
    let mut dx = Expected::default();
    for (row, dy) in x.chunks_exact(2 * width).zip(dy.chunks_exact(width)) {
        let (gates, ups) = row.split_at(width);
        for ((&gate, &up), &dy) in gates.iter().zip(ups).zip(dy) {
            let (gate, up, dy): (f64, f64, f64) = (gate.into(), up.into(), dy.into());
            let (sigmoid, complement) = (1.0 / (1.0 + (-gate).exp()), 1.0 / (1.0 + gate.exp()));
            let relative = gamma((3.0 + 2.0 * gate.abs().min(88.0)) + 13.0);
            let magnitude = (dy * up).abs() * sigmoid * (1.0 + (gate * complement).abs());
            let flush = FLUSH * ((dy * up).abs() * (3.0 + 2.0 * gate.abs()) + 2.0 * (dy.abs() + up.abs()) + 3.0);
            dx.push(dy * up * sigmoid * (1.0 + gate * complement), magnitude * relative + flush);
        }
        let gates_and_dy: Vec<X> = [gates, dy].concat();
        let du = swiglu(&gates_and_dy, width);
        dx.values.extend(du.values);
        dx.bound.extend(du.bound);
    }
    dx
}
