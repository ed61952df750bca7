//! What gradients, the loss and the optimiser should give. Their formulas are held against finite differences of the
//! forward oracles in tests/gradients.

pub mod adamw;
pub mod cross_entropy;
pub mod embedding;
pub mod gradient_norm;
pub mod packed_attention;
pub mod rms_norm;
pub mod rope;
