//! Safetensors files as a [`Checkpoint`]: one file, or shards with an index, memory-mapped.
//! Headers are checked by the `safetensors` crate; here they are compared with the file's real length and the index.
//! Tensors of types that no weight has are listed apart, so that unused ones cause no error.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata};

use super::json::{self, Object};
use super::storage::{Bytes, Folder, Storage};
use super::{Checkpoint, TensorInfo, contents, expect_out, expect_rows};
use crate::error::{Error, Result};
use crate::formats::WeightFormat;

/// The one file of a model that is not sharded.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The index of a model that is.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

const SUPPORTED: &str = "BF16, F16, F32";
const SUPPORTED_IDS: &str = "I32, U32";

/// The tensors of a Hugging Face folder.
pub struct Safetensors {
    folder: PathBuf,
    shards: Vec<Bytes>,
    /// Sorted by name; `places` has the same order.
    tensors: Vec<TensorInfo>,
    places: Vec<Place>,
    /// Tensors of other types, with their shards.
    others: BTreeMap<String, (usize, Entry)>,
}

/// Location of a tensor's bytes.
struct Place {
    shard: usize,
    bytes: Range<usize>,
}

/// A tensor's entry in a file's header.
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl Safetensors {
    /// Opens the tensors of `folder`: `model.safetensors`; else the shards that `model.safetensors.index.json` names;
    /// else every `*.safetensors` file there is.
    ///
    /// # Errors
    ///
    /// [`Error::NoModel`] if there is none; [`Error::Damaged`] for a header that is cut off, overlaps or
    /// lies, a shard the index names and the folder lacks, a tensor the index names and the shard lacks, a tensor that
    /// is in two files; [`Error::Io`].
    pub fn open(folder: &Path) -> Result<Safetensors> {
        Safetensors::from_storage(folder, &Folder(folder))
    }

    /// As [`Safetensors::open`], of files that lie elsewhere; `folder` is what to call it all in messages.
    ///
    /// # Errors
    ///
    /// As [`Safetensors::open`].
    pub fn from_storage(folder: &Path, storage: &dyn Storage) -> Result<Safetensors> {
        let (files, index) = list_files(folder, storage)?;
        let mut shards = Vec::with_capacity(files.len());
        let mut found: BTreeMap<String, (usize, Entry)> = BTreeMap::new();
        for (shard, file) in files.iter().enumerate() {
            let (map, header) = open_file(storage, file)?;
            shards.push(map);
            for (name, entry) in header {
                // Tensors that the index does not place in this shard are not part of the model.
                if index.as_ref().is_some_and(|index| index.get(&name) != Some(file)) {
                    continue;
                }
                if let Some((other, _)) = found.get(&name) {
                    let reason = format!("tensor {name:?} is also in {}", storage.path(&files[*other]).display());
                    return Err(damaged(&storage.path(file), reason));
                }
                found.insert(name, (shard, entry));
            }
        }
        for (name, file) in index.iter().flatten() {
            if !found.contains_key(name) {
                let reason = format!("no tensor {name:?}, which {INDEX_FILE} says is here");
                return Err(damaged(&storage.path(file), reason));
            }
        }
        // A model that was saved without its head has names without the prefix.
        if !found.contains_key("model.embed_tokens.weight") && found.contains_key("embed_tokens.weight") {
            let prefixed = |name: String| if name.starts_with("lm_head.") { name } else { format!("model.{name}") };
            found = found.into_iter().map(|(name, entry)| (prefixed(name), entry)).collect();
        }
        let mut checkpoint = Safetensors {
            folder: folder.to_owned(),
            shards,
            tensors: Vec::with_capacity(found.len()),
            places: Vec::with_capacity(found.len()),
            others: BTreeMap::new(),
        };
        for (name, (shard, entry)) in found {
            let Some(stored) = stored_type(entry.dtype) else {
                checkpoint.others.insert(name, (shard, entry));
                continue;
            };
            let Entry { shape, bytes, .. } = entry;
            checkpoint.tensors.push(TensorInfo { name, shape, stored, bytes: bytes.len() as u64 });
            checkpoint.places.push(Place { shard, bytes });
        }
        Ok(checkpoint)
    }

    /// Returns the index of tensor `name` in `tensors`.
    fn locate(&self, name: &str) -> Result<usize> {
        if let Ok(index) = self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)) {
            return Ok(index);
        }
        let (path, name) = (self.folder.clone(), name.to_owned());
        Err(match self.others.get(&name) {
            Some((_, Entry { dtype, .. })) => {
                Error::TensorType { path, name, got: dtype.to_string(), supported: SUPPORTED.to_owned() }
            }
            None => Error::MissingTensor { path, name },
        })
    }
}

impl Checkpoint for Safetensors {
    fn path(&self) -> &Path {
        &self.folder
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn other_tensors(&self) -> Vec<&str> {
        self.others.keys().map(String::as_str).collect()
    }

    fn expect(&self, name: &str, expected: &[usize]) -> Result<&TensorInfo> {
        let info = &self.tensors[self.locate(name)?];
        if info.shape == expected {
            return Ok(info);
        }
        Err(Error::TensorShape {
            path: self.folder.clone(),
            name: name.to_owned(),
            got: info.shape.clone(),
            expected: expected.to_owned(),
        })
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let index = self.locate(name)?;
        let (info, place) = (&self.tensors[index], &self.places[index]);
        let (outer, columns) = match info.shape.as_slice() {
            [] => (&[][..], 1),
            [outer @ .., columns] => (outer, *columns),
        };
        // It does not overflow: the header was checked.
        expect_rows(&self.folder, name, &rows, outer.iter().product())?;
        expect_out("read_rows", out, rows.len(), columns)?;
        let wanted = rows.len() * columns;
        let element = info.stored.stored_bytes(1);
        let start = place.bytes.start + rows.start * columns * element;
        let bytes = self.shards[place.shard]
            .get(start..start + wanted * element)
            .ok_or_else(|| damaged(&self.folder, format!("tensor {name:?} lies past the end of its file")))?;
        info.stored.widen(bytes, out);
        Ok(())
    }

    fn read_ids(&self, name: &str) -> Result<Option<Vec<u32>>> {
        let wrong_type = |got: String| {
            let (path, name) = (self.folder.clone(), name.to_owned());
            Error::TensorType { path, name, got, supported: SUPPORTED_IDS.to_owned() }
        };
        if let Some(info) = self.find(name) {
            return Err(wrong_type(info.stored.file_name()));
        }
        let Some((shard, Entry { dtype, shape, bytes })) = self.others.get(name) else { return Ok(None) };
        if !matches!(dtype, Dtype::I32 | Dtype::U32) {
            return Err(wrong_type(dtype.to_string()));
        }
        if shape.len() != 1 {
            return Err(damaged(&self.folder, format!("tensor {name:?} has the shape {shape:?}; a list was expected")));
        }
        let bytes = self.shards[*shard]
            .get(bytes.clone())
            .ok_or_else(|| damaged(&self.folder, format!("tensor {name:?} lies past the end of its file")))?;
        let (elements, _) = bytes.as_chunks::<4>();
        // A negative number becomes an id that no model has.
        Ok(Some(elements.iter().map(|&element| u32::from_le_bytes(element)).collect()))
    }
}

fn stored_type(dtype: Dtype) -> Option<WeightFormat> {
    match dtype {
        Dtype::BF16 => Some(WeightFormat::Bf16),
        Dtype::F16 => Some(WeightFormat::F16),
        Dtype::F32 => Some(WeightFormat::F32),
        _ => None,
    }
}

/// Opens a file and checks its header.
fn open_file(storage: &dyn Storage, name: &str) -> Result<(Bytes, Vec<(String, Entry)>)> {
    let path = storage.path(name);
    let bytes = storage.open(name).map_err(|source| Error::Io { path: path.clone(), source })?;
    if bytes.len() < 8 {
        let error = damaged(&path, "too short for a safetensors header; is the download complete?".to_owned());
        return Err(contents::explained(&path, &bytes, error));
    }
    let header = read_header(&path, &bytes).map_err(|error| contents::explained(&path, &bytes, error))?;
    Ok((bytes, header))
}

fn read_header(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Entry)>> {
    let fault = |reason: String| damaged(path, format!("damaged safetensors header: {reason}"));
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| fault("no length".to_owned()))?;
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length)
        .ok()
        .and_then(|length| rest.get(..length))
        .ok_or_else(|| fault(format!("it claims {length} bytes of a file of {}; is it cut off?", bytes.len())))?;
    let metadata: Metadata = serde_json::from_slice(header).map_err(|error| fault(error.to_string()))?;
    // The crate's own reader adds the last offset to the header's length unchecked, so the lengths are compared here.
    let (claimed, data_length) = (metadata.data_len(), rest.len() - header.len());
    if claimed != data_length {
        let reason = format!("it describes {claimed} bytes of tensors and {data_length} follow; is the file cut off?");
        return Err(fault(reason));
    }
    let data_start = bytes.len() - data_length;
    let entry = |info: &safetensors::tensor::TensorInfo| Entry {
        dtype: info.dtype,
        shape: info.shape.clone(),
        bytes: data_start + info.data_offsets.0..data_start + info.data_offsets.1,
    };
    Ok(metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect())
}

/// The shard of each tensor.
pub(super) type Index = BTreeMap<String, String>;

/// The files that hold the tensors, and the index if there is one. `folder` is what to call it all in messages.
pub(super) fn list_files(folder: &Path, storage: &dyn Storage) -> Result<(Vec<String>, Option<Index>)> {
    if storage.has(SINGLE_FILE) {
        return Ok((vec![SINGLE_FILE.to_owned()], None));
    }
    if let Some(json) = json::read_if_present(storage, INDEX_FILE)? {
        let index_path = storage.path(INDEX_FILE);
        let index = shard_names(&index_path, &json)?;
        let files: BTreeSet<String> = index.values().cloned().collect();
        if let Some(missing) = files.iter().find(|file| !storage.has(file)) {
            return Err(damaged(&index_path, format!("names the shard {missing:?}, which the folder does not hold")));
        }
        return Ok((files.into_iter().collect(), Some(index)));
    }
    let mut files = storage.names().map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    files.retain(|name| name.ends_with(".safetensors"));
    files.sort();
    if files.is_empty() {
        return Err(Error::NoModel {
            name: folder.display().to_string(),
            reason: "the folder holds no *.safetensors file; other weight formats (*.bin, *.pth) are not read"
                .to_owned(),
        });
    }
    if let Some(missing) = super::folder::missing_shard(&files) {
        return Err(Error::NoModel {
            name: folder.display().to_string(),
            reason: format!("the folder lacks {missing}, one of the files that the model was split into"),
        });
    }
    Ok((files, None))
}

/// The shard of each tensor, by an index's `weight_map`.
///
/// # Errors
///
/// [`Error::Config`]; [`Error::Damaged`] for a shard outside the folder.
pub(crate) fn shard_names(index_path: &Path, json: &serde_json::Value) -> Result<BTreeMap<String, String>> {
    let index = Object::of(index_path, json)?;
    let weight_map = index.required("weight_map", index.object("weight_map", "weight_map.")?)?;
    let mut names = BTreeMap::new();
    for tensor in weight_map.keys() {
        let shard = weight_map.required(tensor, weight_map.text(tensor)?)?;
        // An index comes with a download: it may not lead out of its own folder.
        let inside = !shard.is_empty()
            && !shard.contains(['\\', ':', '\0'])
            && Path::new(shard).components().all(|component| matches!(component, Component::Normal(_)));
        if !inside {
            return Err(damaged(index_path, format!("the shard {shard:?} of {tensor:?} lies outside the folder")));
        }
        names.insert(tensor.to_owned(), shard.to_owned());
    }
    if names.is_empty() {
        return Err(index.fault("weight_map", "names no tensor"));
    }
    Ok(names)
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Damaged { path: path.to_owned(), reason }
}
