//! Storage of a model's files: a folder, memory, or wherever an application keeps them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

/// The bytes of one file: a vector, a static array, a memory map, or anything else that holds bytes. Clones share them.
#[derive(Clone)]
pub struct Bytes {
    held: Arc<dyn AsRef<[u8]> + Send + Sync>,
}

impl Bytes {
    /// The bytes that `held` holds, which must stay as they are.
    pub fn new(held: impl AsRef<[u8]> + Send + Sync + 'static) -> Bytes {
        Bytes { held: Arc::new(held) }
    }

    /// Maps the file at `path`, which must not be changed or cut off by anyone while this lives.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn map(path: &Path) -> io::Result<Bytes> {
        let file = File::open(path)?;
        // SAFETY: the map is only read. Another process that shortens the file while it is mapped would end this one, as
        // with every program that maps its models; Hugging Face's cache replaces files and does not rewrite them.
        Ok(Bytes::new(unsafe { Mmap::map(&file) }?))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        (*self.held).as_ref()
    }
}

/// A folder of files, wherever it lies. Names are relative to it; `/` parts them where there are folders inside.
pub trait Storage {
    /// The path that stands for the file `name` in messages.
    fn path(&self, name: &str) -> PathBuf;

    /// The names of all files.
    ///
    /// # Errors
    ///
    /// The storage's own.
    fn names(&self) -> io::Result<Vec<String>>;

    /// The bytes of the file `name`.
    ///
    /// # Errors
    ///
    /// Of the kind [`io::ErrorKind::NotFound`] if there is no such file; the storage's own.
    fn open(&self, name: &str) -> io::Result<Bytes>;

    /// Returns `true` if there is a file `name`.
    fn has(&self, name: &str) -> bool {
        self.names().is_ok_and(|names| names.iter().any(|found| found == name))
    }
}

/// A folder on the disk.
pub struct Folder<'a>(pub &'a Path);

/// Longer files are mapped; shorter ones are read, so that they cannot change underneath.
const MAPPED: u64 = 64 << 10;

impl Storage for Folder<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(self.0)?.flatten().filter(|entry| entry.path().is_file());
        Ok(entries.filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    fn open(&self, name: &str) -> io::Result<Bytes> {
        let path = self.path(name);
        match std::fs::metadata(&path)?.len() {
            0..MAPPED => std::fs::read(&path).map(Bytes::new),
            _ => Bytes::map(&path),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.path(name).is_file()
    }
}

/// Files in memory.
#[derive(Clone, Default)]
pub struct Memory {
    files: BTreeMap<String, Bytes>,
}

impl Memory {
    /// An empty folder.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// The same with the file `name` in it.
    pub fn with(mut self, name: impl Into<String>, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Memory {
        self.files.insert(name.into(), Bytes::new(bytes));
        self
    }
}

impl Storage for Memory {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Bytes> {
        self.files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }
}
