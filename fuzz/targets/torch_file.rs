//! A file of `torch.save`. An input that is no zip archive is taken for the pickle of one whose two storages hold 48 values
//! and 6, so that the pickle's reader is reached.
#![no_main]

mod values;

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pard::checkpoint::storage::Bytes;
use pard::checkpoint::torch_file::{Bf16Tensor, TorchFile, archive_of};

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
    values::read_all(&file, |_, _, _| ());
});
