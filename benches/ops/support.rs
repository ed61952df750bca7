//! Dependencies of the oracles, shared with the tests.

#[path = "../../tests/support/random.rs"]
pub mod random;
#[path = "../../tests/support/tiny_model.rs"]
pub mod tiny_model;
#[path = "../../tests/support/tiny_tokenizer.rs"]
pub mod tiny_tokenizer;
