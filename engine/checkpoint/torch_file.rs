//! Files of `torch.save`: a zip archive whose `data.pkl` describes tensors and whose other members are their bytes.
//!
//! A pickle is a program. The machine that reads it here builds text, numbers, tuples, and dictionaries of tensors; the
//! names that it knows are those of the function that makes a tensor, of three storages, and of the ordered dictionary.
//! Nothing is ever called, and an opcode or a name beyond these is an error.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Cursor, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::storage::Bytes;
use super::{Checkpoint, TensorInfo, expect_out, expect_rows};
use crate::error::{Error, Result};
use crate::formats::WeightFormat;

/// The tensors of a file.
pub struct TorchFile {
    path: PathBuf,
    bytes: Bytes,
    /// Sorted by name; `views` has the same order.
    tensors: Vec<TensorInfo>,
    views: Vec<View>,
}

/// Elements of a tensor of one or two dimensions.
struct View {
    /// Bytes of its storage in the file.
    storage: Range<usize>,
    /// Index of its first element there.
    offset: usize,
    /// Elements from one row to the next, and from one column to the next.
    strides: [usize; 2],
    rows: usize,
    columns: usize,
}

impl TorchFile {
    /// Reads the description of the tensors in `bytes`; `path` is for messages. Tensors of more than two dimensions are
    /// passed over.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if it is no such file, holds anything but tensors of F32, F16 and BF16, or describes tensors that
    /// are not in it.
    pub fn from_bytes(path: &Path, bytes: Bytes) -> Result<TorchFile> {
        let fault = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let members = Members::of(&bytes).map_err(fault)?;
        let described = members.described(&bytes).map_err(fault)?;
        let mut found = Vec::with_capacity(described.len());
        for (name, tensor) in described {
            let place = |reason: String| fault(format!("tensor {name:?}: {reason}"));
            let Some(view) = members.view(&tensor).map_err(place)? else { continue };
            let bytes = (view.rows * view.columns * tensor.storage.format.stored_bytes(1)) as u64;
            let info = TensorInfo { name, shape: tensor.shape, stored: tensor.storage.format, bytes };
            found.push((info, view));
        }
        // Of two with one name, Python's dictionary keeps the later one.
        found.reverse();
        found.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        found.dedup_by(|(one, _), (other, _)| one.name == other.name);
        let (tensors, views) = found.into_iter().unzip();
        Ok(TorchFile { path: path.to_owned(), bytes, tensors, views })
    }
}

impl Checkpoint for TorchFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let index = self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name));
        let missing = || Error::MissingTensor { path: self.path.clone(), name: name.to_owned() };
        let index = index.map_err(|_| missing())?;
        let (info, view) = (&self.tensors[index], &self.views[index]);
        expect_rows(&self.path, name, &rows, view.rows)?;
        expect_out("read_rows", out, rows.len(), view.columns)?;
        let element = info.stored.stored_bytes(1);
        let storage = &self.bytes[view.storage.clone()];
        for (row, out) in rows.zip(out.chunks_exact_mut(view.columns.max(1))) {
            let first = view.offset + row * view.strides[0];
            if view.strides[1] == 1 {
                info.stored.widen(&storage[first * element..(first + view.columns) * element], out);
            } else {
                for (column, out) in out.iter_mut().enumerate() {
                    let at = (first + column * view.strides[1]) * element;
                    info.stored.widen(&storage[at..at + element], std::slice::from_mut(out));
                }
            }
        }
        Ok(())
    }
}

type Described<T> = std::result::Result<T, String>;

/// The members of an archive.
struct Members {
    /// Bytes of the file, by the name below the archive's one folder.
    places: HashMap<String, Range<usize>>,
}

impl Members {
    fn of(bytes: &[u8]) -> Described<Members> {
        let unzip = |error: zip::result::ZipError| format!("not an archive of torch.save: {error}");
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(unzip)?;
        let mut places = HashMap::new();
        let mut folder = None;
        for index in 0..archive.len() {
            let member = archive.by_index_raw(index).map_err(unzip)?;
            let name = member.name().map_err(unzip)?.into_owned();
            if member.compression() != CompressionMethod::Stored || member.encrypted() {
                return Err(format!("its member {name:?} is compressed, which torch.save does not do"));
            }
            let (root, rest) = name.split_once('/').ok_or_else(|| format!("its member {name:?} is in no folder"))?;
            if *folder.get_or_insert_with(|| root.to_owned()) != *root {
                return Err(format!("it has two folders, {:?} and {root:?}", folder.unwrap_or_default()));
            }
            let start = member.data_start().and_then(|start| usize::try_from(start).ok());
            let end = start.zip(usize::try_from(member.size()).ok()).and_then(|(start, size)| start.checked_add(size));
            match start.zip(end).filter(|&(_, end)| end <= bytes.len()) {
                Some((start, end)) => places.insert(rest.to_owned(), start..end),
                None => return Err(format!("its member {name:?} lies past its end; is the file cut off?")),
            };
        }
        Ok(Members { places })
    }

    fn place(&self, name: &str) -> Described<Range<usize>> {
        self.places.get(name).cloned().ok_or_else(|| format!("it has no {name}; was it written by torch.save?"))
    }

    /// The tensors that the pickle describes.
    fn described(&self, bytes: &[u8]) -> Described<Vec<(String, Tensor)>> {
        if let Some(order) = self.places.get("byteorder")
            && bytes[order.clone()].trim_ascii() != b"little"
        {
            return Err("its numbers are not little-endian".to_owned());
        }
        let pickle = &bytes[self.place("data.pkl")?];
        Machine::new(pickle).run().map_err(|reason| format!("data.pkl: {reason}"))
    }

    /// Checks that `tensor` lies in its storage; none if it has more than two dimensions, or none.
    fn view(&self, tensor: &Tensor) -> Described<Option<View>> {
        let Storage { format, ref key, elements } = tensor.storage;
        let storage = self.place(&format!("data/{key}"))?;
        if elements.checked_mul(format.stored_bytes(1)) != Some(storage.len()) {
            return Err(format!("{elements} elements in data/{key}, which has {} bytes", storage.len()));
        }
        let (rows, columns, strides) = match (tensor.shape.as_slice(), tensor.strides.as_slice()) {
            (&[columns], &[stride]) => (1, columns, [0, stride]),
            (&[rows, columns], &[down, right]) => (rows, columns, [down, right]),
            _ => return Ok(None),
        };
        let count = rows.checked_mul(columns).filter(|count| count.checked_mul(4).is_some());
        let last = |len: usize, stride: usize| len.saturating_sub(1).checked_mul(stride);
        let last = last(rows, strides[0]).zip(last(columns, strides[1])).and_then(|(down, right)| {
            down.checked_add(right)?.checked_add(tensor.offset).filter(|&last| last < elements)
        });
        match (count, last) {
            (Some(1..), Some(_)) => Ok(Some(View { storage, offset: tensor.offset, strides, rows, columns })),
            _ => Err(format!("the shape {:?} does not fit its {elements} elements", tensor.shape)),
        }
    }
}

/// A tensor as the pickle describes it.
#[derive(Clone)]
struct Tensor {
    storage: Storage,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

#[derive(Clone)]
struct Storage {
    format: WeightFormat,
    key: String,
    elements: usize,
}

/// A name that pickles may mention.
#[derive(Clone, Copy)]
enum Global {
    RebuildTensor,
    OrderedDict,
    Storage(WeightFormat),
}

impl Global {
    fn named(module: &str, name: &str) -> Described<Global> {
        match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2") => Ok(Global::RebuildTensor),
            ("collections", "OrderedDict") => Ok(Global::OrderedDict),
            ("torch", "FloatStorage") => Ok(Global::Storage(WeightFormat::F32)),
            ("torch", "HalfStorage") => Ok(Global::Storage(WeightFormat::F16)),
            ("torch", "BFloat16Storage") => Ok(Global::Storage(WeightFormat::Bf16)),
            ("torch", storage) if storage.ends_with("Storage") => {
                Err(format!("{storage:?} is not supported; supported: FloatStorage, HalfStorage, BFloat16Storage"))
            }
            _ => Err(format!("it names {module:?} {name:?}, which no file of plain tensors does")),
        }
    }
}

/// Dictionary of tensors. Entries of other kinds are passed over.
type Dictionary = Rc<RefCell<Vec<(String, Tensor)>>>;

#[derive(Clone)]
enum Value {
    /// Something that no tensor is described by.
    Other,
    Number(i64),
    Text(Rc<str>),
    /// With its depth.
    Tuple(Rc<[Value]>, u32),
    Dictionary(Dictionary),
    Global(Global),
    Storage(Rc<Storage>),
    Tensor(Rc<Tensor>),
}

impl Value {
    fn size(&self) -> Option<usize> {
        match self {
            Value::Number(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    fn sizes(&self) -> Option<Vec<usize>> {
        match self {
            Value::Tuple(values, _) => values.iter().map(Value::size).collect(),
            _ => None,
        }
    }
}

/// Tuples within tuples, at most. Deeper ones could exhaust the stack when they are dropped.
const MAX_DEPTH: u32 = 8;

/// A pickle being read.
struct Machine<'a> {
    rest: &'a [u8],
    length: usize,
    stack: Vec<Value>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

impl<'a> Machine<'a> {
    fn new(pickle: &'a [u8]) -> Machine<'a> {
        Machine { rest: pickle, length: pickle.len(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// Reads all of it, and returns the tensors of its dictionary.
    fn run(mut self) -> Described<Vec<(String, Tensor)>> {
        loop {
            let at = self.length - self.rest.len();
            match self.step().map_err(|reason| format!("at byte {at}: {reason}"))? {
                None => {}
                Some(Value::Dictionary(tensors)) => return Ok(tensors.borrow().clone()),
                Some(_) => return Err("it is no dictionary of tensors".to_owned()),
            }
        }
    }

    /// Follows one opcode; returns the pickle's value at its end.
    fn step(&mut self) -> Described<Option<Value>> {
        let [opcode] = self.bytes()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            0x80 => match self.bytes()? {
                [0..=3] => {}
                [protocol] => return Err(format!("protocol {protocol} is not supported; torch.save writes 2")),
            },
            b'}' => self.push(Value::Dictionary(Dictionary::default())),
            b')' => self.push(Value::Tuple(Rc::new([]), 0)),
            b'N' | 0x88 | 0x89 => self.push(Value::Other),
            b'K' => {
                let [number] = self.bytes()?;
                self.push(Value::Number(number.into()));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.bytes()?);
                self.push(Value::Number(number.into()));
            }
            b'J' => {
                let number = i32::from_le_bytes(self.bytes()?);
                self.push(Value::Number(number.into()));
            }
            0x8a => {
                let [length] = self.bytes()?;
                let bytes = self.take(length.into())?;
                let sign = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
                let mut number = [sign; 8];
                number.get_mut(..bytes.len()).ok_or("a number is too long")?.copy_from_slice(bytes);
                self.push(Value::Number(i64::from_le_bytes(number)));
            }
            b'X' => {
                let length = u32::from_le_bytes(self.bytes()?);
                let text = std::str::from_utf8(self.take(length as usize)?).map_err(|error| error.to_string())?;
                self.push(Value::Text(text.into()));
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(Global::named(&module, &name)?));
            }
            b'q' => {
                let [index] = self.bytes()?;
                self.remember(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.bytes()?);
                self.remember(index)?;
            }
            b'h' => {
                let [index] = self.bytes()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.bytes()?);
                self.recall(index)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b't' => {
                let values = self.since_mark()?;
                self.tuple(values)?;
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let first = self.stack.len().checked_sub(count).ok_or("the stack is empty")?;
                let values = self.above(first)?;
                self.tuple(values)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(vec![key, value])?;
            }
            b'u' => {
                let entries = self.since_mark()?;
                self.insert(entries)?;
            }
            b'Q' => {
                let storage = storage(self.pop()?).ok_or("it refers to something that is no storage")?;
                self.push(Value::Storage(Rc::new(storage)));
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.push(called(&function, &arguments).ok_or("it calls something in an unknown way")?);
            }
            // Attributes of a dictionary, such as versions of modules.
            b'b' => {
                self.pop()?;
                if !matches!(self.stack.last(), Some(Value::Dictionary(_))) {
                    return Err("it sets attributes of something that is no dictionary".to_owned());
                }
            }
            other => return Err(format!("the opcode {other:#04x} is not one of tensors' pickles")),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Described<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("it ends in the middle")?;
        self.rest = rest;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Described<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or("it ends in the middle")?;
        self.rest = rest;
        Ok(*taken)
    }

    /// The text up to the end of the line.
    fn line(&mut self) -> Described<String> {
        let end = self.rest.iter().position(|&byte| byte == b'\n').ok_or("it ends in the middle")?;
        let line = self.take(end + 1)?;
        Ok(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    fn pop(&mut self) -> Described<Value> {
        if self.marks.last().is_some_and(|&mark| mark >= self.stack.len()) {
            return Err("a mark is in the way".to_owned());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".to_owned())
    }

    /// Takes the values above height `first`.
    fn above(&mut self, first: usize) -> Described<Vec<Value>> {
        if self.marks.last().is_some_and(|&mark| mark > first) {
            return Err("a mark is in the way".to_owned());
        }
        Ok(self.stack.split_off(first))
    }

    fn since_mark(&mut self) -> Described<Vec<Value>> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        self.above(mark)
    }

    fn tuple(&mut self, values: Vec<Value>) -> Described<()> {
        let depth = |value: &Value| if let Value::Tuple(_, depth) = value { depth + 1 } else { 0 };
        let depth = values.iter().map(depth).max().unwrap_or(0);
        if depth > MAX_DEPTH {
            return Err("its tuples are nested too deep".to_owned());
        }
        self.push(Value::Tuple(values.into(), depth));
        Ok(())
    }

    /// Inserts keys and values, which alternate, into the dictionary on top of the stack.
    fn insert(&mut self, entries: Vec<Value>) -> Described<()> {
        let Some(Value::Dictionary(dictionary)) = self.stack.last() else {
            return Err("it inserts into something that is no dictionary".to_owned());
        };
        let (pairs, odd) = entries.as_chunks::<2>();
        if !odd.is_empty() {
            return Err("a key has no value".to_owned());
        }
        for pair in pairs {
            if let [Value::Text(key), Value::Tensor(tensor)] = pair {
                dictionary.borrow_mut().push((key.to_string(), Tensor::clone(tensor)));
            }
        }
        Ok(())
    }

    fn remember(&mut self, index: u32) -> Described<()> {
        let value = self.stack.last().ok_or("the stack is empty")?;
        self.memo.insert(index, value.clone());
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Described<()> {
        let value = self.memo.get(&index).ok_or("it refers to a value that is not there")?;
        self.stack.push(value.clone());
        Ok(())
    }
}

/// The storage that a persistent id names: `("storage", type, key, device, elements)`.
fn storage(id: Value) -> Option<Storage> {
    let Value::Tuple(id, _) = id else { return None };
    match &id[..] {
        [Value::Text(kind), Value::Global(Global::Storage(format)), Value::Text(key), _, elements]
            if &**kind == "storage" =>
        {
            Some(Storage { format: *format, key: key.to_string(), elements: elements.size()? })
        }
        _ => None,
    }
}

/// The value of a call, all of whose possible results are known beforehand.
fn called(function: &Value, arguments: &Value) -> Option<Value> {
    let Value::Tuple(arguments, _) = arguments else { return None };
    match (function, &arguments[..]) {
        (Value::Global(Global::OrderedDict), []) => Some(Value::Dictionary(Dictionary::default())),
        (Value::Global(Global::RebuildTensor), [Value::Storage(storage), offset, shape, strides, ..]) => {
            let (shape, strides) = (shape.sizes()?, strides.sizes()?);
            let (storage, offset) = (Storage::clone(storage), offset.size()?);
            (shape.len() == strides.len()).then(|| Value::Tensor(Rc::new(Tensor { storage, offset, shape, strides })))
        }
        _ => None,
    }
}

/// A tensor in BF16 for [`archive`].
pub struct Bf16Tensor<'a> {
    /// Its key in the dictionary.
    pub name: &'a str,
    /// Its shape, one or two numbers below 2³¹.
    pub shape: &'a [usize],
    /// Its values, little-endian, row by row.
    pub bytes: &'a [u8],
}

/// The file that `torch.save` makes of a dictionary of `tensors`, in the folder `root`.
///
/// # Errors
///
/// Those of writing a zip archive, which memory has room for.
pub fn archive(root: &str, tensors: &[Bf16Tensor]) -> std::io::Result<Vec<u8>> {
    archive_of(root, &pickle(tensors), tensors)
}

/// As [`archive`], with another pickle: a file that need not be readable.
///
/// # Errors
///
/// As [`archive`].
pub fn archive_of(root: &str, pickle: &[u8], tensors: &[Bf16Tensor]) -> std::io::Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    // Members begin at multiples of 64, so that they can be mapped.
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(64);
    let mut member = |name: &str, bytes: &[u8]| {
        zip.start_file(format!("{root}/{name}"), options)?;
        zip.write_all(bytes)
    };
    member("data.pkl", pickle)?;
    member("byteorder", b"little")?;
    for (index, tensor) in tensors.iter().enumerate() {
        member(&format!("data/{index}"), tensor.bytes)?;
    }
    member("version", b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

/// The dictionary of `tensors`, in protocol 2.
fn pickle(tensors: &[Bf16Tensor]) -> Vec<u8> {
    let text = |out: &mut Vec<u8>, text: &str| {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    };
    let number = |out: &mut Vec<u8>, number: usize| {
        out.push(b'J');
        out.extend((number as u32).to_le_bytes());
    };
    let sizes = |out: &mut Vec<u8>, sizes: &[usize]| {
        out.push(b'(');
        sizes.iter().for_each(|&size| number(out, size));
        out.push(b't');
    };
    let mut out = b"\x80\x02}(".to_vec();
    for (index, tensor) in tensors.iter().enumerate() {
        text(&mut out, tensor.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(b"ctorch\nBFloat16Storage\n");
        text(&mut out, &index.to_string());
        text(&mut out, "cpu");
        number(&mut out, tensor.shape.iter().product());
        out.extend(b"tQ");
        number(&mut out, 0);
        sizes(&mut out, tensor.shape);
        let strides: Vec<usize> = (1..=tensor.shape.len()).map(|from| tensor.shape[from..].iter().product()).collect();
        sizes(&mut out, &strides);
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    out
}
