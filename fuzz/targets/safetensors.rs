//! A folder of Hugging Face's with one safetensors file: the input up to a zero byte is the index of shards, if it is
//! not empty, in which the file is called `a.safetensors`; the rest is the file.
#![no_main]

mod values;

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pard::checkpoint::Checkpoint;
use pard::checkpoint::safetensors::{INDEX_FILE, SINGLE_FILE, Safetensors};
use pard::checkpoint::storage::Memory;

fuzz_target!(|data: &[u8]| {
    let split = data.iter().position(|&byte| byte == 0).unwrap_or_default();
    let (index, file) = data.split_at(split);
    let file = file.get(1..).unwrap_or_default().to_vec();
    let folder = match index {
        [] => Memory::new().with(SINGLE_FILE, file),
        _ => Memory::new().with("a.safetensors", file).with(INDEX_FILE, index.to_vec()),
    };
    let Ok(tensors) = Safetensors::from_storage(Path::new("fuzz"), &folder) else { return };
    values::read_all(&tensors, |tensor, _, _| drop(tensors.read_ids(&tensor.name)));
});
