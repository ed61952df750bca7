//! A GGUF file: its header, metadata, tensors, configuration, tokenizer and chat template.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pard::checkpoint::Checkpoint;
use pard::checkpoint::gguf::Gguf;
use pard::checkpoint::storage::Bytes;

/// Values of a tensor that are widened at most: a file may say that it has more than there are bytes.
const VALUES: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(Path::new("fuzz.gguf"), Bytes::new(data.to_vec())) else { return };
    for tensor in gguf.tensors() {
        let columns = tensor.shape.last().copied().unwrap_or_default();
        let rows = tensor.shape.iter().rev().skip(1).product::<usize>();
        if columns > VALUES {
            continue;
        }
        let count = rows.min(VALUES / columns.max(1));
        let mut values = vec![0.0; count * columns];
        let _ = gguf.read_rows(&tensor.name, 0..count, &mut values);
        let mut blocks = vec![0; count * tensor.stored.stored_bytes(columns)];
        let _ = gguf.read_blocks(&tensor.name, 0..count, &mut blocks);
    }
    let _ = gguf.config();
    let _ = gguf.special_tokens();
    let _ = gguf.model_name();
    let _ = gguf.named_chat_templates().count();
    if let Ok(tokenizer) = gguf.tokenizer() {
        let _ = tokenizer.encode("What is 12 x 34?\n", false);
    }
});
