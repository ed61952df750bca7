//! GGUF files: the header and its faults, the element types, names and row order, hyper-parameters, tokenizers.

mod checkpoint;
mod faults;
mod hyper_parameters;
mod quantised;
mod real_files;
mod split;
mod tokenizer;
mod widening;
pub mod writer;

use std::io::Write;

use pard::Result;
use pard::checkpoint::gguf::Gguf;
use tempfile::NamedTempFile;

/// Opens `bytes` as a file. The file is returned because it must outlive its map.
fn open(bytes: &[u8]) -> (NamedTempFile, Result<Gguf>) {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    let gguf = Gguf::open(file.path());
    (file, gguf)
}

/// Opens what must be a good file.
fn open_good(bytes: &[u8]) -> (NamedTempFile, Gguf) {
    let (file, gguf) = open(bytes);
    (file, gguf.unwrap_or_else(|error| panic!("{error}")))
}

/// Says so where a test has nothing to work on; straight to standard error, past the test runner's capture.
fn skipped(reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}
