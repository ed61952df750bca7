//! The WGSL files, by name: the path in shaders/ without `kernels/`, `kernels/training/` or `pieces/`. They are part of
//! the binary, so that it runs from anywhere; a folder of edited ones may stand in for them, so that a kernel can be
//! changed and profiled without a rebuild.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, OptionName, Result};

// Written by build.rs.
include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

/// Source of kernels: this crate's own files, some of which may be edited ones.
#[derive(Debug, Clone, Default)]
pub struct Shaders {
    edited: HashMap<&'static str, String>,
}

impl Shaders {
    /// This crate's files, but those that `folder` holds in the places that they have in shaders/
    /// (`kernels/matmul_rows.wgsl`, `pieces/weights/bf16.wgsl`) taken from there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a file cannot be read; [`Error::Option`] if the folder holds none of them.
    pub fn from_folder(folder: &Path) -> Result<Shaders> {
        let mut edited = HashMap::new();
        for &(name, path, _) in FILES {
            let path = folder.join(path);
            match std::fs::read_to_string(&path) {
                Ok(text) => drop(edited.insert(name, text)),
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Io { path, source }),
            }
        }
        if edited.is_empty() {
            let reason =
                format!("{} holds no shader of this program, such as kernels/matmul_rows.wgsl", folder.display());
            return Err(Error::Option { option: OptionName::Shaders, reason });
        }
        Ok(Shaders { edited })
    }

    /// The names of the files that are taken from a folder and differ from this crate's, ascending.
    pub fn edited(&self) -> Vec<&'static str> {
        let differs = |(name, text): (&&'static str, &String)| (source(name) != Some(text)).then_some(*name);
        let mut names: Vec<_> = self.edited.iter().filter_map(differs).collect();
        names.sort_unstable();
        names
    }

    /// The text of the file `name`.
    pub(super) fn source(&self, name: &str) -> Option<&str> {
        self.edited.get(name).map(String::as_str).or_else(|| source(name))
    }
}

/// The text of the file `name`.
pub fn source(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(file, ..)| *file == name).map(|(_, _, text)| *text)
}

/// The names of all shader files.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, ..)| *name)
}
