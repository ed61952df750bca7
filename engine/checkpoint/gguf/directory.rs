//! The tensor directory: where each tensor lies, checked so that no later read can leave the file.

use std::ops::Range;

use super::reader::Reader;
use crate::error::{Error, Result};
use crate::formats::WeightFormat;

/// The most axes ggml knows.
const MAX_AXES: u32 = 4;

/// One tensor of the file.
pub(super) struct Tensor<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// Outermost first, the reverse of the file's order.
    pub shape: Vec<usize>,
    /// The format that it is stored in.
    pub format: WeightFormat,
    /// Its byte range in the file.
    pub bytes: Range<usize>,
}

/// A tensor's entry in the directory, before the check that it fits the file.
struct Entry<'a> {
    name: &'a str,
    shape: Vec<usize>,
    format: WeightFormat,
    offset: u64,
    len: usize,
}

/// Reads `count` tensors; their data begin at the first multiple of `alignment` after the directory.
pub(super) fn read_directory<'a>(reader: &mut Reader<'a>, count: u64, alignment: u64) -> Result<Vec<Tensor<'a>>> {
    let mut entries = Vec::new();
    for index in 0..count {
        entries.push(read_entry(reader, index)?);
    }
    let data = (reader.position as u64).checked_next_multiple_of(alignment);
    let mut tensors = Vec::with_capacity(entries.len());
    for Entry { name, shape, format, offset, len } in entries {
        if !offset.is_multiple_of(alignment) {
            return Err(reader.damaged(format_args!("tensor {name:?} lies at {offset}, no multiple of {alignment}")));
        }
        let start = data.and_then(|data| data.checked_add(offset)).and_then(|start| usize::try_from(start).ok());
        let bytes = start.and_then(|start| Some(start..start.checked_add(len)?));
        match bytes.filter(|bytes| bytes.end <= reader.bytes.len()) {
            Some(bytes) => tensors.push(Tensor { name, shape, format, bytes }),
            None => {
                return Err(reader.damaged(format_args!(
                    "tensor {name:?} ({len} bytes at offset {offset}) reaches past the end of the file: cut off or damaged"
                )));
            }
        }
    }
    check_overlaps(reader, &mut tensors)?;
    Ok(tensors)
}

fn read_entry<'a>(reader: &mut Reader<'a>, index: u64) -> Result<Entry<'a>> {
    let name = reader.name(format_args!("the name of tensor {index}"))?;
    let axes = reader.u32(format_args!("the number of axes of {name:?}"))?;
    if axes == 0 || axes > MAX_AXES {
        return Err(reader.damaged(format_args!("tensor {name:?} has {axes} axes, not 1 to {MAX_AXES}")));
    }
    let mut shape = Vec::new();
    for axis in 0..axes {
        let size = reader.u64(format_args!("axis {axis} of {name:?}"))?;
        match usize::try_from(size) {
            Ok(size) if size > 0 => shape.insert(0, size),
            _ => return Err(reader.damaged(format_args!("tensor {name:?} has an axis of {size}"))),
        }
    }
    let number = reader.u32(format_args!("the element type of {name:?}"))?;
    let format = WeightFormat::ALL.iter().copied().find(|format| format.gguf_number() == number);
    let format = format.ok_or_else(|| Error::TensorType {
        path: reader.path.to_owned(),
        name: name.to_owned(),
        got: unsupported_name(number),
        supported: WeightFormat::ALL.iter().map(|format| format.file_name()).collect::<Vec<_>>().join(", "),
    })?;
    let offset = reader.u64(format_args!("the offset of {name:?}"))?;

    let columns = shape[shape.len() - 1];
    let block = format.block_len();
    if !columns.is_multiple_of(block) {
        return Err(
            reader.damaged(format_args!("tensor {name:?} has rows of {columns}, which blocks of {block} do not fill"))
        );
    }
    let values = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let len = values.and_then(|values| (values / block).checked_mul(format.stored_bytes(block)));
    let len = len.ok_or_else(|| reader.damaged(format_args!("tensor {name:?} of shape {shape:?} overflows")))?;
    Ok(Entry { name, shape, format, offset, len })
}

/// The name of element type `number`, which is not supported.
fn unsupported_name(number: u32) -> String {
    const NAMES: [(u32, &str); 16] = [
        (9, "Q8_1"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (24, "I8"),
        (25, "I16"),
        (26, "I32"),
        (27, "I64"),
        (28, "F64"),
        (29, "IQ1_M"),
        (34, "TQ1_0"),
        (39, "MXFP4"),
    ];
    match NAMES.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("{number}, unknown here"),
    }
}

/// Sorts `tensors` by place and refuses two that share a byte or a name.
fn check_overlaps(reader: &Reader, tensors: &mut [Tensor]) -> Result<()> {
    tensors.sort_by(|one, other| one.name.cmp(other.name));
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(reader.damaged(format_args!("tensor {:?} occurs twice", pair[0].name)));
    }
    tensors.sort_by_key(|tensor| tensor.bytes.start);
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].bytes.end > pair[1].bytes.start) {
        return Err(reader.damaged(format_args!("tensors {:?} and {:?} overlap", pair[0].name, pair[1].name)));
    }
    Ok(())
}
