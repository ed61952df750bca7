//! A file of `torch.save`. An input that is no zip archive is taken for the pickle of one whose two storages hold 48 values
//! and 6, so that the pickle's reader is reached.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pard::checkpoint::Checkpoint;
use pard::checkpoint::storage::Bytes;
use pard::checkpoint::torch_file::{Bf16Tensor, TorchFile, archive_of};

const VALUES: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let bytes = match data.starts_with(b"PK") {
        true => data.to_vec(),
        false => {
            let values = [0; 96];
            let tensors = [([6, 8].as_slice(), &values[..]), (&[6], &values[..12])];
            let tensors = tensors.map(|(shape, bytes)| Bf16Tensor { name: "tensor", shape, bytes });
            archive_of("warp_model", data, &tensors).expect("an archive in memory")
        }
    };
    let Ok(file) = TorchFile::from_bytes(Path::new("fuzz"), Bytes::new(bytes)) else { return };
    for tensor in file.tensors() {
        let columns = tensor.shape.last().copied().unwrap_or(1);
        let rows = tensor.shape.iter().rev().skip(1).product::<usize>();
        if columns > VALUES {
            continue;
        }
        let count = rows.min(VALUES / columns.max(1));
        let mut values = vec![0.0; count * columns];
        let _ = file.read_rows(&tensor.name, 0..count, &mut values);
    }
});
