//! Files that `llama-gguf-split` cut up: the first has the metadata, each some of the tensors.

use std::path::Path;

use pard::checkpoint::gguf::Gguf;
use pard::checkpoint::storage::Memory;
use pard::checkpoint::{Checkpoint, ModelFiles};

use super::writer::{Writer, small_llama};

fn name(number: usize) -> String {
    format!("small-{number:05}-of-00003.gguf")
}

/// The parts of `whole`, of which the first has no tensors, as `--no-tensor-first-split` makes them.
fn parts(whole: &Writer) -> [Writer; 3] {
    let middle = whole.tensors.len() / 2;
    let tensors = [&[], &whole.tensors[..middle], &whole.tensors[middle..]];
    let keys = [whole.keys.clone(), Vec::new(), Vec::new()];
    let mut number = 0..;
    [0, 1, 2].map(|part| {
        let writer = Writer { keys: keys[part].clone(), tensors: tensors[part].to_vec(), ..Writer::default() };
        let split = writer.key("split.count", 3).key("split.no", number.next().unwrap_or(0u32));
        split.key("split.tensors.count", whole.tensors.len() as u32)
    })
}

fn write(folder: &Path, parts: &[Writer; 3]) {
    for (index, part) in parts.iter().enumerate() {
        std::fs::write(folder.join(name(index + 1)), part.bytes()).expect("writing");
    }
}

#[test]
fn parts_are_read_as_one_model_whichever_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), &parts(&small_llama()));
    let (_file, whole) = super::open_good(&small_llama().bytes());
    for number in 1..=3 {
        let gguf = Gguf::open(&folder.path().join(name(number))).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(gguf.tensors(), whole.tensors());
        assert_eq!(gguf.model_name(), Some("Small"));
        for tensor in whole.tensors() {
            let columns = tensor.shape[tensor.shape.len() - 1];
            let (mut row, mut expected) = (vec![0.0; columns], vec![1.0; columns]);
            gguf.read_rows(&tensor.name, 0..1, &mut row).expect("a row");
            whole.read_rows(&tensor.name, 0..1, &mut expected).expect("a row");
            assert_eq!(row, expected, "{}", tensor.name);
        }
    }
    let model = ModelFiles::open(&folder.path().join(name(1))).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(model.name(), "Small");
}

#[test]
fn parts_in_memory_are_one_model() {
    let mut storage = Memory::new();
    for (index, part) in parts(&small_llama().without("general.name")).iter().enumerate() {
        storage = storage.with(name(index + 1), part.bytes());
    }
    let model = ModelFiles::from_storage("mine", &storage).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((model.name(), model.checkpoint.tensors().len()), ("mine", small_llama().tensors.len()));
}

#[test]
fn the_name_without_the_part_is_the_models() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), &parts(&small_llama().without("general.name")));
    assert_eq!(
        ModelFiles::open(&folder.path().join(name(1))).map(|files| files.name().to_owned()).ok().as_deref(),
        Some("small")
    );
}

#[test]
fn a_part_that_is_missing_or_another_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = parts(&small_llama());
    let message = || Gguf::open(&folder.path().join(name(1))).err().expect("a fault").to_string();
    write(folder.path(), &good);
    std::fs::remove_file(folder.path().join(name(2))).expect("removing");
    assert!(message().contains(&name(2)), "{}", message());

    let [first, second, third] = good;
    write(folder.path(), &[first.clone(), third.clone(), second.clone()]);
    assert!(message().contains("part 2 of 3"), "{}", message());

    let mut short = third.clone();
    short.tensors.pop();
    write(folder.path(), &[first, second, short]);
    assert!(message().contains("split.tensors.count"), "{}", message());
}
