//! A GGUF file: its header, metadata, tensors, configuration, tokenizer and chat template.
#![no_main]

mod values;

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pard::checkpoint::Checkpoint;
use pard::checkpoint::gguf::Gguf;
use pard::checkpoint::storage::Bytes;

fuzz_target!(|data: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(Path::new("fuzz.gguf"), Bytes::new(data.to_vec())) else { return };
    values::read_all(&gguf, |tensor, rows, columns| {
        let mut blocks = vec![0; rows * tensor.stored.stored_bytes(columns)];
        let _ = gguf.read_blocks(&tensor.name, 0..rows, &mut blocks);
    });
    let _ = gguf.config();
    let _ = gguf.special_tokens();
    let _ = (gguf.model_name(), gguf.suggested());
    let _ = (gguf.chat_template(), gguf.named_chat_template("tool_use"));
    if let Ok(tokenizer) = gguf.tokenizer() {
        let _ = tokenizer.encode("What is 12 x 34?\n", false);
    }
});
