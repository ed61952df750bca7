//! One binary for all tests, so that wgpu and candle are linked once.

mod comparison;
