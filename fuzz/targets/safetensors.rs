//! A folder of Hugging Face's with one safetensors file: the input up to a zero byte is the index of shards, if it is
//! not empty, in which the file is called `a.safetensors`; the rest is the file.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pard::checkpoint::Checkpoint;
use pard::checkpoint::safetensors::{INDEX_FILE, SINGLE_FILE, Safetensors};
use pard::checkpoint::storage::Memory;

const VALUES: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let split = data.iter().position(|&byte| byte == 0).unwrap_or_default();
    let (index, file) = data.split_at(split);
    let file = file.get(1..).unwrap_or_default().to_vec();
    let folder = match index {
        [] => Memory::new().with(SINGLE_FILE, file),
        _ => Memory::new().with("a.safetensors", file).with(INDEX_FILE, index.to_vec()),
    };
    let Ok(tensors) = Safetensors::from_storage(Path::new("fuzz"), &folder) else { return };
    for tensor in tensors.tensors() {
        let columns = tensor.shape.last().copied().unwrap_or(1);
        let rows = tensor.shape.iter().rev().skip(1).product::<usize>();
        if columns > VALUES {
            continue;
        }
        let count = rows.min(VALUES / columns.max(1));
        let mut values = vec![0.0; count * columns];
        let _ = tensors.read_rows(&tensor.name, 0..count, &mut values);
        let _ = tensors.read_ids(&tensor.name);
    }
});
