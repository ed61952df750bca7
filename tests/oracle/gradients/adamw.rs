//! AdamW.

use pard::low_level::ops::gradients::AdamWStep;

use super::super::Expected;
use crate::comparison::{FLUSH, gamma};

/// A parameter and its moments, in f64, with bounds that grow from step to step.
pub struct AdamW {
    pub parameter: Expected,
    pub first: Expected,
    pub second: Expected,
}

impl AdamW {
    /// Before the first step.
    pub fn new(parameter: &[f32]) -> AdamW {
        let zeros = || Expected { values: vec![0.0; parameter.len()], bound: vec![0.0; parameter.len()] };
        let values = parameter.iter().copied().map(f64::from).collect();
        AdamW { parameter: Expected { values, ..zeros() }, first: zeros(), second: zeros() }
    }

    /// One step. `norm` is the gradients' norm with its relative error.
    ///
    /// **Bound**: each operation rounds once (division 2.5 ULP, square root 3) on operands with the errors so far;
    /// the second moment's error goes through the root as an interval.
    /// **Source**: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2, with the learning rate for `η α`.
    pub fn step(&mut self, step: &AdamWStep, gradient: &[f32], norm: (f64, f64)) {
        let [learning_rate, beta1, beta2, epsilon, decay, correction1, correction2, clip] = [
            step.learning_rate,
            step.beta1,
            step.beta2,
            step.epsilon,
            step.weight_decay,
            step.correction1,
            step.correction2,
            step.clip,
        ]
        .map(f64::from);
        let (scale, scale_error) = if norm.0 > clip { (clip / norm.0, norm.1 + gamma(4.0)) } else { (1.0, 0.0) };
        for (index, &g) in gradient.iter().enumerate() {
            let g = f64::from(g) * scale;
            let g_error = g.abs() * scale_error + FLUSH;
            let (m, m_error) = (&mut self.first.values[index], &mut self.first.bound[index]);
            let terms = (beta1 * *m).abs() + ((1.0 - beta1) * g).abs();
            *m = beta1 * *m + (1.0 - beta1) * g;
            *m_error = beta1 * *m_error + g_error + gamma(3.0) * terms * 1.001 + FLUSH;
            let (v, v_error) = (&mut self.second.values[index], &mut self.second.bound[index]);
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *v_error =
                beta2 * *v_error + (1.0 - beta2) * 2.0 * g.abs() * g_error + gamma(5.0) * *v * 1.001 + 2.0 * FLUSH;
            let root = |v: f64| (v.max(0.0) / correction2).sqrt() + epsilon;
            let (lowest, highest) = (root(*v - *v_error), root(*v + *v_error));
            let direction = *m / correction1 / root(*v);
            let direction_error = (m.abs() + *m_error) / correction1 * (1.0 / lowest - 1.0 / highest)
                + *m_error / correction1 / lowest
                + gamma(16.0) * (m.abs() + *m_error) / correction1 / lowest
                + FLUSH;
            let (p, p_error) = (&mut self.parameter.values[index], &mut self.parameter.bound[index]);
            let change = learning_rate * (direction + decay * *p);
            let change_terms = learning_rate * (direction.abs() + (decay * *p).abs());
            *p_error += learning_rate * (direction_error + decay * *p_error) + gamma(4.0) * change_terms + FLUSH;
            *p -= change;
            *p_error += gamma(1.0) * (p.abs() + *p_error);
        }
    }
}
