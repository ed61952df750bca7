//! Damaged and lying files: a clear error, never a panic, a hang or a huge allocation.

use std::path::Path;
use std::sync::LazyLock;

use pard::Error;
use pard::checkpoint::Checkpoint;
use pard::checkpoint::gguf::Gguf;
use proptest::prelude::*;

use super::writer::{Tensor, Value, Writer, element, small_llama};
use super::{open, open_good};

/// Asserts that `bytes` are refused as damaged, in these words.
fn assert_damaged(bytes: &[u8], words: &[&str]) {
    match open(bytes).1 {
        Err(Error::Damaged { reason, .. }) => {
            for word in words {
                assert!(reason.contains(word), "{reason:?} lacks {word:?}");
            }
        }
        Err(other) => panic!("{words:?}: {other}"),
        Ok(_) => panic!("{words:?}: opened"),
    }
}

fn raw_key(kind: u32, bytes: impl Into<Vec<u8>>) -> Vec<u8> {
    Writer::default().key("k", Value::Raw(kind, bytes.into())).bytes()
}

fn one_tensor(shape: &[u64], element: u32, len: usize) -> Writer {
    Writer::default().tensor("t", shape, element, vec![0; len])
}

#[test]
fn no_file_and_no_gguf_file() {
    assert!(matches!(Gguf::open(Path::new("/nowhere/model.gguf")), Err(Error::Io { .. })));
    let folder = tempfile::tempdir().expect("a folder");
    assert!(Gguf::open(folder.path()).is_err());
    assert_damaged(b"", &["the file is empty"]);
    assert_damaged(b"GGU", &["not a GGUF file"]);
    assert_damaged(b"{\"a\": 1}, and more", &["not a GGUF file"]);
}

#[test]
fn other_versions_and_byte_orders() {
    for version in [0, 1, 4, 77] {
        assert_damaged(&Writer { version, ..Writer::default() }.bytes(), &["version", &version.to_string()]);
    }
    for version in [2u32, 3] {
        assert_damaged(&Writer { version: version.swap_bytes(), ..Writer::default() }.bytes(), &["big-endian"]);
    }
}

#[test]
fn every_cut_is_refused() {
    let bytes = small_llama().bytes();
    let step = |at: usize| if at < 200 || at + 200 > bytes.len() { 1 } else { 97 };
    let mut len = 0;
    while len < bytes.len() {
        assert!(open(&bytes[..len]).1.is_err(), "{len} of {} bytes", bytes.len());
        len += step(len);
    }
    open_good(&bytes);
}

#[test]
fn lengths_and_counts_beyond_the_file() {
    const HUGE: [u8; 8] = (1u64 << 60).to_le_bytes();
    assert_damaged(&raw_key(8, HUGE), &["\"k\"", "1152921504606846976"]);
    for element in [0u32, 4, 8, 9, 12] {
        let array = [&element.to_le_bytes()[..], &HUGE].concat();
        assert_damaged(&raw_key(9, array), &["array \"k\"", "1152921504606846976"]);
    }
    assert_damaged(&raw_key(13, []), &["\"k\"", "value type 13"]);
    assert_damaged(&raw_key(9, [13, 0, 0, 0]), &["\"k\"", "value type 13"]);
    let mut bytes = small_llama().bytes();
    bytes[8..16].copy_from_slice(&HUGE);
    assert_damaged(&bytes, &["number of tensors"]);
    let mut bytes = small_llama().bytes();
    bytes[16..24].copy_from_slice(&HUGE);
    assert_damaged(&bytes, &["number of metadata keys"]);
    let mut bytes = small_llama().bytes();
    bytes[24..32].copy_from_slice(&HUGE);
    assert_damaged(&bytes, &["metadata key 0"]);
}

#[test]
fn arrays_nested_too_deep() {
    let nested = |depth: usize| {
        let mut bytes = Vec::new();
        for _ in 1..depth {
            bytes.extend(9u32.to_le_bytes());
            bytes.extend(1u64.to_le_bytes());
        }
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        raw_key(9, bytes)
    };
    open_good(&nested(4));
    assert_damaged(&nested(5), &["\"k\"", "nest"]);
    assert_damaged(&nested(10_000), &["\"k\"", "nest"]);
}

#[test]
fn strings_that_are_no_text() {
    assert_damaged(&raw_key(8, [1, 0, 0, 0, 0, 0, 0, 0, 0xFF]), &["\"k\"", "UTF-8"]);
    let mut bytes = Writer::default().key("k", 1).bytes();
    bytes[32] = 0xFF;
    assert_damaged(&bytes, &["metadata key 0", "UTF-8"]);
}

#[test]
fn names_that_occur_twice() {
    let mut writer = Writer::default().key("k", 1);
    writer.keys.push(("k".to_owned(), Value::U32(2)));
    assert_damaged(&writer.bytes(), &["\"k\" occurs twice"]);
    assert_damaged(&one_tensor(&[8], element::F32, 32).counting("t", &[8]).bytes(), &["\"t\" occurs twice"]);
    let same = Writer::default().counting("output.weight", &[8]).counting("lm_head.weight", &[8]);
    assert_damaged(&same.bytes(), &["two tensors", "lm_head.weight"]);
}

#[test]
fn tensors_that_cannot_be() {
    assert_damaged(&one_tensor(&[], element::F32, 4).bytes(), &["\"t\"", "0 axes"]);
    assert_damaged(&one_tensor(&[1, 1, 1, 1, 1], element::F32, 4).bytes(), &["\"t\"", "5 axes"]);
    assert_damaged(&one_tensor(&[0, 4], element::F32, 0).bytes(), &["\"t\"", "axis of 0"]);
    assert_damaged(&one_tensor(&[1 << 40, 1 << 40], element::F32, 4).bytes(), &["\"t\"", "overflows"]);
    assert_damaged(&one_tensor(&[1 << 62], element::F32, 4).bytes(), &["\"t\"", "overflows"]);
    assert_damaged(&one_tensor(&[1 << 50], element::F32, 4).bytes(), &["\"t\"", "past the end"]);
    assert_damaged(&one_tensor(&[9], element::F32, 35).bytes(), &["\"t\"", "past the end"]);
    assert_damaged(&one_tensor(&[2, 33], element::Q8_0, 100).bytes(), &["\"t\"", "blocks of 32"]);
}

#[test]
fn tensors_that_lie_wrong() {
    let at = |offset: u64| {
        let tensor = |name: &str, offset| Tensor {
            name: name.to_owned(),
            shape: vec![16],
            element: element::F32,
            bytes: vec![0; 64],
            offset,
        };
        Writer { tensors: vec![tensor("one", None), tensor("two", Some(offset))], ..Writer::default() }.bytes()
    };
    open_good(&at(64));
    assert_damaged(&at(32), &["\"one\"", "\"two\"", "overlap"]);
    assert_damaged(&at(0), &["overlap"]);
    assert_damaged(&at(65), &["\"two\"", "multiple of 32"]);
    assert_damaged(&at(96), &["\"two\"", "past the end"]);
    assert_damaged(&at(u64::MAX - 31), &["\"two\"", "past the end"]);
}

#[test]
fn alignments() {
    for alignment in [0, 3, 31] {
        let (_file, gguf) = open(&Writer::default().key("general.alignment", alignment).bytes());
        let message = gguf.err().expect("a fault").to_string();
        assert!(message.contains("general.alignment"), "{message}");
    }
    open_good(&one_tensor(&[8], element::F32, 32).key("general.alignment", 8).bytes());
    assert_damaged(&one_tensor(&[8], element::F32, 32).key("general.alignment", 1 << 31).bytes(), &["past the end"]);
}

#[test]
fn element_types_that_are_not_read() {
    for (number, name) in [(16, "IQ2_XXS"), (21, "IQ3_S"), (4, "4, unknown"), (77, "77, unknown")] {
        match open(&one_tensor(&[256], number, 256).bytes()).1 {
            Err(Error::TensorType { name: tensor, got, supported, .. }) => {
                assert_eq!(tensor, "t");
                assert!(got.contains(name), "{got}");
                assert!(supported.contains("Q4_K"));
            }
            other => panic!("{number}: {:?}", other.err()),
        }
    }
}

#[test]
fn one_part_of_several() {
    let (_file, gguf) = open(&small_llama().key("split.count", 3).bytes());
    let message = gguf.err().expect("a fault").to_string();
    assert!(message.contains("3 parts") && message.contains("merge"), "{message}");
}

/// Does with a file all that can be done with one.
fn use_wholly(bytes: &[u8]) {
    let Ok(gguf) = open(bytes).1 else { return };
    for tensor in gguf.tensors() {
        let columns = tensor.shape[tensor.shape.len() - 1];
        let mut row = vec![0.0; columns];
        gguf.read_rows(&tensor.name, 0..1, &mut row).expect("the first row of a tensor there is");
    }
    let _ = gguf.config();
    let _ = gguf.special_tokens();
    let _ = gguf.chat_template();
    if let Ok(tokenizer) = gguf.tokenizer() {
        let _ = tokenizer.encode("hello world, <|im_end|>  \u{e9}\u{4e16} 123", true);
    }
}

/// Small files of every kind, so that a random byte is likely to be one that matters.
static VICTIMS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let pieces = Writer::default()
        .key("general.architecture", "qwen2")
        .key("tokenizer.ggml.model", "llama")
        .key(
            "tokenizer.ggml.tokens",
            Value::Texts(["<unk>", "<s>", "</s>", "▁", "a", "▁a"].map(str::to_owned).to_vec()),
        )
        .key("tokenizer.ggml.token_type", Value::I32s(vec![2, 3, 3, 1, 1, 1]))
        .key("tokenizer.ggml.scores", Value::F32s(vec![0.0, 0.0, 0.0, -1.0, -2.0, -0.5]))
        .tensor("blk.0.attn_q.weight", &[2, 32], element::Q8_0, vec![1; 68])
        .tensor("token_embd.weight", &[3, 2], element::BF16, vec![1; 12]);
    let mut llama = small_llama();
    llama.tensors.truncate(3);
    let bare = Writer { tensors: Vec::new(), ..small_llama() };
    vec![pieces.bytes(), llama.bytes(), bare.bytes(), one_tensor(&[2, 8], element::F16, 32).bytes()]
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_neither_panic_nor_hang(
        which in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        words in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![Just(u64::MAX), Just(1 << 60), Just(1 << 31), 0u64..300]), 0..2),
        kept in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = VICTIMS[which].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for (at, word) in words {
            let at = at.index(bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        if let Some(kept) = kept {
            bytes.truncate(kept.index(bytes.len()));
        }
        use_wholly(&bytes);
    }

    #[test]
    fn bytes_at_random_neither_panic_nor_hang(tail in prop::collection::vec(any::<u8>(), 0..400)) {
        let counts = [3u64, 5].map(u64::to_le_bytes).concat();
        use_wholly(&[&b"GGUF\x03\0\0\0"[..], &counts, &tail].concat());
    }
}
