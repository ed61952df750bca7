//! A cursor over the file's bytes. Nothing is read, and nothing allocated, before the bytes are known to be there.

use std::fmt::{Arguments, Display};
use std::path::Path;

use crate::error::{Error, Result};

/// Longer names are a damaged file: llama.cpp itself stops at 64 bytes for tensors, the format at 65535 for keys.
const LONGEST_NAME: u64 = 65535;

pub(super) struct Reader<'a> {
    pub path: &'a Path,
    pub bytes: &'a [u8],
    pub position: usize,
}

impl<'a> Reader<'a> {
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub fn damaged(&self, reason: impl Display) -> Error {
        damaged(self.path, reason)
    }

    /// The next `len` bytes, of the thing called `what`.
    pub fn take(&mut self, len: u64, what: Arguments) -> Result<&'a [u8]> {
        match usize::try_from(len).ok().and_then(|len| self.bytes[self.position..].get(..len)) {
            Some(taken) => {
                self.position += taken.len();
                Ok(taken)
            }
            None => Err(self.damaged(format_args!(
                "{what} at byte {} needs {len} bytes, but the file ends after {}",
                self.position,
                self.remaining()
            ))),
        }
    }

    pub fn u32(&mut self, what: Arguments) -> Result<u32> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub fn u64(&mut self, what: Arguments) -> Result<u64> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8, what)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// A count of things of at least `smallest` bytes each, which must fit into what is left of the file.
    pub fn count(&mut self, smallest: usize, what: Arguments) -> Result<u64> {
        let at = self.position;
        let count = self.u64(what)?;
        if count > (self.remaining() / smallest) as u64 {
            return Err(self.damaged(format_args!(
                "{what} at byte {at} is {count}, more than the rest of the file ({} bytes) can hold",
                self.remaining()
            )));
        }
        Ok(count)
    }

    /// A string, whatever its bytes.
    pub fn string(&mut self, what: Arguments) -> Result<&'a [u8]> {
        let len = self.u64(format_args!("the length of {what}"))?;
        self.take(len, what)
    }

    /// A name: a short string of UTF-8.
    pub fn name(&mut self, what: Arguments) -> Result<&'a str> {
        let at = self.position;
        let len = self.u64(format_args!("the length of {what}"))?;
        if len > LONGEST_NAME {
            return Err(self.damaged(format_args!("{what} at byte {at} is {len} bytes long")));
        }
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged(format_args!("{what} at byte {at} is not UTF-8")))
    }
}

pub(super) fn damaged(path: &Path, reason: impl Display) -> Error {
    Error::Damaged { path: path.to_owned(), reason: reason.to_string() }
}
