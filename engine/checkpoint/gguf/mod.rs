//! GGUF, llama.cpp's one-file format: tensors (often quantised), hyper-parameters and tokenizer together.
//! A file is mapped, its header checked once and whole, and rows are widened when they are asked for.
//! Versions 2 and 3 are supported, little-endian; a split file's parts are read as one. Names are Hugging Face's, so that
//! nothing after this module depends on the format of a model's files.

mod directory;
mod hyper_parameters;
mod metadata;
mod names;
mod pre_tokenizer;
mod reader;
pub(super) mod split;
mod tokenizer;
mod vocabulary;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use self::directory::Tensor;
use self::metadata::{Entries, Metadata};
use self::names::Rotated;
use self::reader::{Reader, damaged};
use self::split::PartName;
pub(in crate::checkpoint) use self::vocabulary::END_TEXTS;
pub use self::vocabulary::SpecialTokens;
use crate::checkpoint::config::{Config, Family};
use crate::checkpoint::storage::Bytes;
use crate::checkpoint::{Checkpoint, TensorInfo, contents, expect_out, expect_rows};
use crate::error::{Error, Result};
use crate::formats::WeightFormat;

/// Data begin at a multiple of this where the file does not say otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// An open GGUF file, in one part or in several.
///
/// A file that [`Gguf::open`] opens is memory-mapped: it must not be changed or cut off by anyone while this lives.
pub struct Gguf {
    /// The first has the metadata of all.
    parts: Vec<Part>,
    /// Sorted by name.
    tensors: Vec<TensorInfo>,
    /// Their locations, in the same order.
    extents: Vec<Extent>,
}

/// One file, its metadata read.
struct Part {
    path: PathBuf,
    map: Bytes,
    entries: Entries,
    tensor_count: u64,
    /// Begin of the tensor directory.
    directory: usize,
}

/// Location and encoding of a tensor in the file.
struct Extent {
    part: usize,
    format: WeightFormat,
    bytes: Range<usize>,
    rows: usize,
    columns: usize,
    /// The heads within which the converter reordered the rows, if it did.
    reordered_heads: Option<usize>,
}

impl Gguf {
    /// Maps the file at `path`, and the others beside it if it is one of several parts, and checks their headers.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; those of [`Gguf::from_bytes`].
    pub fn open(path: &Path) -> Result<Gguf> {
        let map = Bytes::map(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Gguf::with_parts(path, map, |name| Bytes::map(&path.with_file_name(name)))
    }

    /// Checks the header of a file whose bytes are `map`; `path` names it in messages.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if the file is no GGUF file, of a version or byte order that is
    /// not read, cut off, contradicts itself, or is one of several parts; [`Error::TensorType`] for an element type that
    /// is not read.
    pub fn from_bytes(path: &Path, map: Bytes) -> Result<Gguf> {
        Gguf::with_parts(path, map, |_| Err(io::ErrorKind::NotFound.into()))
    }

    /// As [`Gguf::from_bytes`], where `open` opens the file of another name beside it.
    pub(super) fn with_parts(path: &Path, map: Bytes, open: impl Fn(&str) -> io::Result<Bytes>) -> Result<Gguf> {
        let named = Part::new(path.to_owned(), map)?;
        let parts = match named.metadata().unsigned("split.count")? {
            None | Some(0 | 1) => vec![named],
            Some(count) => all_parts(named, count, open)?,
        };
        let (tensors, extents) = describe(&parts)?;
        Ok(Gguf { parts, tensors, extents })
    }

    /// The hyper-parameters.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFamily`], and [`Error::Config`] for one that is missing, inconsistent or asks for
    /// something that this crate does not do.
    pub fn config(&self) -> Result<Config> {
        hyper_parameters::read_config(self)
    }

    /// The tokenizer. `encode(text, true)` puts the begin token first where the file wants one.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if the file holds none or one of a kind that is not known.
    pub fn tokenizer(&self) -> Result<tokenizers::Tokenizer> {
        tokenizer::build(self.metadata())
    }

    /// The tokens with a meaning of their own.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`], [`Error::TokenRange`].
    pub fn special_tokens(&self) -> Result<SpecialTokens> {
        vocabulary::Vocabulary::read(self.metadata())?.special_tokens(self.metadata())
    }

    /// The chat template (Jinja), if the file holds one.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is no text.
    pub fn chat_template(&self) -> Result<Option<&str>> {
        self.metadata().text("tokenizer.chat_template")
    }

    /// The further chat template of this name (`tool_use`, `rag`), if the file holds one.
    ///
    /// # Errors
    ///
    /// As [`Gguf::chat_template`].
    pub fn named_chat_template(&self, name: &str) -> Result<Option<&str>> {
        self.metadata().text(&format!("tokenizer.chat_template.{name}"))
    }

    /// As in [`crate::text::ChatTokenizer::suggested`], by llama.cpp's keys.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for one that is no number.
    pub fn suggested(&self) -> Result<Vec<String>> {
        const PREFIX: &str = "general.sampling.";
        let metadata = self.metadata();
        let names =
            metadata.entries.keys().filter_map(|key| key.strip_prefix(PREFIX)).filter(|name| *name != "sequence");
        let setting = |name: &str| {
            let value = metadata.float(&format!("{PREFIX}{name}"))?;
            Ok(value.map(|value| format!("{name} {value}")))
        };
        names.map(setting).filter_map(Result::transpose).collect()
    }

    /// The name the publisher gave the model, if the file says.
    pub fn model_name(&self) -> Option<&str> {
        self.metadata().text("general.name").ok().flatten()
    }

    fn metadata(&self) -> Metadata<'_> {
        self.parts[0].metadata()
    }
}

impl Part {
    fn new(path: PathBuf, map: Bytes) -> Result<Part> {
        let mut reader = Reader { path: &path, bytes: &map, position: 0 };
        if !map.starts_with(b"GGUF") {
            let error = reader.damaged("not a GGUF file: it does not begin with \"GGUF\"");
            return Err(contents::explained(&path, &map, error));
        }
        let (tensor_count, key_count) = read_preamble(&mut reader)?;
        let entries = metadata::read_entries(&mut reader, key_count)?;
        let directory = reader.position;
        Ok(Part { path, map, entries, tensor_count, directory })
    }

    fn metadata(&self) -> Metadata<'_> {
        Metadata { path: &self.path, bytes: &self.map, entries: &self.entries }
    }

    fn tensors(&self) -> Result<Vec<Tensor<'_>>> {
        let alignment = self.metadata().unsigned("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
        if !alignment.is_power_of_two() {
            return Err(self.metadata().fault("general.alignment", format!("{alignment} is not a power of two")));
        }
        let mut reader = Reader { path: &self.path, bytes: &self.map, position: self.directory };
        directory::read_directory(&mut reader, self.tensor_count, alignment)
    }
}

/// All `count` parts, of which `named` is one, in order; the others are found by their names.
fn all_parts(named: Part, count: u64, open: impl Fn(&str) -> io::Result<Bytes>) -> Result<Vec<Part>> {
    let path = named.path.clone();
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(name) = PartName::parse(file).filter(|name| u64::from(name.count) == count) else {
        return Err(damaged(
            &path,
            format_args!(
                "this is one of {count} parts, and the others are found by names that end in -00001-of-{count:05}.gguf; \
                 name it so, or join them with `llama-gguf-split --merge`"
            ),
        ));
    };
    let mut named = Some(named);
    let mut parts = Vec::new();
    for number in 1..=name.count {
        let part = match named.take_if(|_| number == name.number) {
            Some(part) => part,
            None => {
                let other = name.of(number);
                let bytes = open(&other).map_err(|error| missing_part(&path, name, &other, error))?;
                Part::new(path.with_file_name(&other), bytes)?
            }
        };
        let metadata = part.metadata();
        let (index, of) = (metadata.unsigned("split.no")?, metadata.unsigned("split.count")?);
        if of != Some(count) || index.is_some_and(|index| index != u64::from(number - 1)) {
            let reason = format!("its name says that it is part {number} of {count}, and its metadata that it is not");
            return Err(damaged(&part.path, reason));
        }
        parts.push(part);
    }
    Ok(parts)
}

fn missing_part(path: &Path, name: PartName, other: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            let (number, count) = (name.number, name.count);
            damaged(path, format_args!("this is part {number} of {count}, and {other} is not beside it"))
        }
        _ => Error::Io { path: path.with_file_name(other), source: error },
    }
}

/// Reads magic, version and the two counts.
fn read_preamble(reader: &mut Reader) -> Result<(u64, u64)> {
    reader.take(4, format_args!("the magic number"))?;
    let version = reader.u32(format_args!("the version"))?;
    match version {
        2 | 3 => {}
        _ if version.swap_bytes() <= 0xFFFF && version > 0xFFFF => {
            return Err(reader.damaged("a big-endian GGUF file; only little-endian ones are read"));
        }
        _ => {
            return Err(reader.damaged(format_args!(
                "GGUF version {version}; versions 2 and 3 are read (convert the model again with a current llama.cpp)"
            )));
        }
    }
    // A tensor has at least an empty name, one axis, its type and its offset; a key an empty name, a type and one byte.
    let tensor_count = reader.count(32, format_args!("the number of tensors"))?;
    let key_count = reader.count(13, format_args!("the number of metadata keys"))?;
    Ok((tensor_count, key_count))
}

/// Renames and sorts the tensors.
fn describe(parts: &[Part]) -> Result<(Vec<TensorInfo>, Vec<Extent>)> {
    let metadata = parts[0].metadata();
    let mut described = Vec::new();
    for (part, file) in parts.iter().enumerate() {
        for Tensor { name, shape, format, bytes } in file.tensors()? {
            let columns = shape[shape.len() - 1];
            let rows = shape[..shape.len() - 1].iter().product();
            let reordered_heads = match names::rotated(name) {
                Some(projection) => reordered_heads(metadata, name, projection, shape[0])?,
                None => None,
            };
            let info = TensorInfo { name: names::hugging_face(name), shape, stored: format, bytes: bytes.len() as u64 };
            described.push((info, Extent { part, format, bytes, rows, columns, reordered_heads }));
        }
    }
    if let Some(count) = metadata.unsigned("split.tensors.count")?.filter(|count| *count != described.len() as u64) {
        let reason = format!("the model has {count} tensors, and its parts hold {}", described.len());
        return Err(metadata.fault("split.tensors.count", reason));
    }
    described.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    if let Some(pair) = described.windows(2).find(|pair| pair[0].0.name == pair[1].0.name) {
        return Err(damaged(metadata.path, format_args!("two tensors stand for {:?}", pair[0].0.name)));
    }
    Ok(described.into_iter().unzip())
}

/// The heads of `projection`, if the converter reordered its `outputs` rows: llama.cpp rotates neighbouring values in some
/// families, and so stores them interleaved.
fn reordered_heads(metadata: Metadata, name: &str, projection: Rotated, outputs: usize) -> Result<Option<usize>> {
    let architecture = hyper_parameters::architecture(metadata)?;
    let family = Family::from_architecture(metadata.path, architecture);
    if !family.is_ok_and(|family| family.definition().is_reordered_in_gguf) {
        return Ok(None);
    }
    let heads = match projection {
        Rotated::Query => hyper_parameters::heads(metadata, architecture)?,
        Rotated::Key => hyper_parameters::kv_heads(metadata, architecture)?,
    };
    if heads == 0 || !outputs.is_multiple_of(heads) || !(outputs / heads).is_multiple_of(2) {
        return Err(damaged(
            metadata.path,
            format_args!("tensor {name:?} has {outputs} rows, which are not {heads} heads of even width"),
        ));
    }
    Ok(Some(heads))
}

/// Returns the place in the file of row `row` of `rows` that were reordered within `heads`: Hugging Face has the first
/// parts of all pairs that RoPE rotates, then all second parts; the file has pair after pair.
fn stored_row(row: usize, rows: usize, heads: usize) -> usize {
    let head_dim = rows / heads;
    let (head, within) = (row / head_dim, row % head_dim);
    let (part, pair) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + pair * 2 + part
}

impl Checkpoint for Gguf {
    fn path(&self) -> &Path {
        self.metadata().path
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let extent = self.extent(name, &rows)?;
        expect_out("read_rows", out, rows.len(), extent.columns)?;
        let widen = |stored: &[u8], out: &mut [f32]| extent.format.widen(stored, out);
        match extent.reordered_heads {
            Some(heads) if extent.rows == 1 => {
                let mut values = vec![0.0; out.len()];
                widen(self.stored(extent, rows), &mut values);
                for (position, out) in out.iter_mut().enumerate() {
                    *out = values[stored_row(position, extent.columns, heads)];
                }
            }
            _ => self.each_run(extent, rows, out, extent.columns, widen),
        }
        Ok(())
    }

    fn read_blocks(&self, name: &str, rows: Range<usize>, out: &mut [u8]) -> Result<()> {
        let extent = self.extent(name, &rows)?;
        expect_out("read_blocks", out, rows.len(), extent.row_bytes())?;
        self.each_run(extent, rows, out, extent.row_bytes(), |stored, out| out.copy_from_slice(stored));
        Ok(())
    }
}

impl Gguf {
    /// Returns the location of `name`, which must have rows `rows`.
    fn extent(&self, name: &str, rows: &Range<usize>) -> Result<&Extent> {
        let index = self
            .tensors
            .binary_search_by(|tensor| tensor.name.as_str().cmp(name))
            .map_err(|_| Error::MissingTensor { path: self.path().to_owned(), name: name.to_owned() })?;
        let extent = &self.extents[index];
        expect_rows(self.path(), name, rows, extent.rows)?;
        Ok(extent)
    }

    /// The bytes of rows `rows`, in the file's order.
    fn stored(&self, extent: &Extent, rows: Range<usize>) -> &[u8] {
        let bytes = extent.row_bytes();
        &self.parts[extent.part].map[extent.bytes.clone()][rows.start * bytes..rows.end * bytes]
    }

    /// Passes the bytes of `rows`, and their place in `out`, to `take`: all at once, or row by row where the file has
    /// them in another order.
    fn each_run<T>(
        &self,
        extent: &Extent,
        rows: Range<usize>,
        out: &mut [T],
        width: usize,
        take: impl Fn(&[u8], &mut [T]),
    ) {
        let Some(heads) = extent.reordered_heads else { return take(self.stored(extent, rows), out) };
        for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
            let from = stored_row(row, extent.rows, heads);
            take(self.stored(extent, from..from + 1), out);
        }
    }
}

impl Extent {
    fn row_bytes(&self) -> usize {
        self.format.stored_bytes(self.columns)
    }
}
