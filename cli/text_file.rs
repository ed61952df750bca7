//! Files of text, which are UTF-8.

use std::path::Path;

use pard::{Error, Result};

/// A file's text.
pub fn read(path: &Path) -> anyhow::Result<String> {
    utf8(&path.display().to_string(), bytes(path)?)
}

/// A file's bytes.
pub fn bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// `bytes` without the byte order mark that editors of Windows begin a text with.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

/// `bytes` of `name` as text, without the byte order mark.
pub fn utf8(name: &str, mut bytes: Vec<u8>) -> anyhow::Result<String> {
    bytes.drain(..bytes.len() - without_mark(&bytes).len());
    String::from_utf8(bytes).map_err(|error| {
        if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] = error.as_bytes() {
            return anyhow::anyhow!("{name} is UTF-16; save it as UTF-8");
        }
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{name} is not UTF-8: byte {at} (0x{:02x}) begins no character", error.as_bytes()[at])
    })
}
