//! Files that are not what they are called: what lies in their place, and the way out.

use std::path::Path;

use crate::error::Error;

/// The longest text that stands for a file in an answer of a server.
const LONGEST_ANSWER: usize = 512;

/// What follows the length of a safetensors file's header.
const SAFETENSORS: &[u8] = b"{\"";

/// `error` of reading `bytes`, or in its place what is known to lie in the file.
pub(super) fn explained(path: &Path, bytes: &[u8], error: Error) -> Error {
    match description(bytes).filter(|_| !is_as_called(path, bytes)) {
        Some(reason) => Error::Damaged { path: path.to_owned(), reason },
        None => error,
    }
}

/// `bytes` without the byte order mark that editors of Windows begin UTF-8 with.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Returns `true` for safetensors in a file that is called so, however damaged they are.
fn is_as_called(path: &Path, bytes: &[u8]) -> bool {
    let is_called_so = path.extension().is_some_and(|extension| extension == "safetensors");
    is_called_so && bytes.get(8..10) == Some(SAFETENSORS)
}

/// Describes `bytes` that belong to another kind of file than a model's.
fn description(bytes: &[u8]) -> Option<String> {
    const PACKED: [(&[u8], &str); 6] = [
        (b"\x1f\x8b", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"7z\xbc\xaf", "7z"),
    ];
    if bytes.is_empty() {
        return Some("the file is empty; was its download completed?".to_owned());
    }
    if bytes.iter().take(4096).all(|&byte| byte == 0) {
        return Some("the file begins with zeros; was its download completed?".to_owned());
    }
    if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Some("it is a pointer of Git LFS and not the file itself, which `git lfs pull` fetches".to_owned());
    }
    if bytes.starts_with(b"GGUF") {
        return Some("it is a GGUF file, whatever it is called; its name ends in .gguf".to_owned());
    }
    if bytes.get(8..10) == Some(SAFETENSORS) {
        return Some("it is a safetensors file, whatever it is called; its name ends in .safetensors".to_owned());
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Some("it is text in UTF-16; save it as UTF-8".to_owned());
    }
    if let Some((_, format)) = PACKED.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(format!("it is packed ({format}); unpack it first"));
    }
    let text = without_mark(bytes).trim_ascii_start();
    let begins = |tag: &str| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()));
    if begins("<!doctype") || begins("<html") || begins("<?xml") {
        return Some("it is a web page, such as a server's error, and not the file itself; fetch it again".to_owned());
    }
    let answer = std::str::from_utf8(text).ok().map(str::trim_end).filter(|text| text.len() <= LONGEST_ANSWER)?;
    let is_sentence = answer.starts_with(|letter: char| letter.is_ascii_uppercase()) && answer.contains(' ');
    let is_plain = is_sentence && !answer.contains(char::is_control);
    is_plain.then(|| format!("it holds the text {answer:?} in place of the file; fetch it again"))
}
