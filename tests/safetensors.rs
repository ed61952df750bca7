//! Safetensors: rows as f32, shards, and headers that do not hold.

use pard::Error;
use pard::WeightFormat;
use pard::checkpoint::Checkpoint;
use pard::checkpoint::safetensors::Safetensors;
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::support::tiny_model::Recipe;

/// A tensor for a test file: its name, type, shape and bytes.
type Raw<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

pub fn serialised(tensors: &[Raw]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("a shape of this length"))
    });
    safetensors::serialize(views, None).expect("serialising")
}

/// A folder with the given files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("writing");
    }
    folder
}

fn fault_of(files: &[(&str, &[u8])]) -> String {
    let folder = folder(files);
    match Safetensors::open(folder.path()) {
        Err(error @ (Error::Damaged { .. } | Error::NoModel { .. } | Error::Config { .. })) => error.to_string(),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("opened"),
    }
}

/// Numbers that BF16, F16 and F32 all hold.
const EXACT: [f32; 6] = [0.0, -1.5, 2.0, 0.25, -65280.0, 1024.0];

fn stored(dtype: Dtype) -> Vec<u8> {
    let bytes = |value: f32| match dtype {
        Dtype::BF16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
        Dtype::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    };
    EXACT.into_iter().flat_map(bytes).collect()
}

#[test]
fn every_type_widens_exactly_wherever_it_lies() {
    // One odd byte first in the file, so that nothing after it is aligned.
    let mut bytes = br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#.to_vec();
    let mut data = vec![7];
    for (name, dtype, dtype_name) in [("b", Dtype::BF16, "BF16"), ("c", Dtype::F16, "F16"), ("d", Dtype::F32, "F32")] {
        let values = stored(dtype);
        let end = data.len() + values.len();
        bytes.extend(
            format!(r#","{name}":{{"dtype":"{dtype_name}","shape":[3,2],"data_offsets":[{},{end}]}}"#, data.len())
                .bytes(),
        );
        data.extend(values);
    }
    bytes.push(b'}');
    let file: Vec<u8> = (bytes.len() as u64).to_le_bytes().into_iter().chain(bytes).chain(data).collect();
    let folder = folder(&[("model.safetensors", &file)]);
    let checkpoint = Safetensors::open(folder.path()).expect("opening");
    let names: Vec<&str> = checkpoint.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "d"]);
    for (name, stored) in [("b", WeightFormat::Bf16), ("c", WeightFormat::F16), ("d", WeightFormat::F32)] {
        assert_eq!(checkpoint.expect(name, &[3, 2]).expect("a tensor").stored, stored);
        for rows in [0..3, 1..2, 2..3, 0..0, 3..3] {
            let mut out = vec![f32::NAN; rows.len() * 2];
            checkpoint.read_rows(name, rows.clone(), &mut out).expect("reading");
            assert_eq!(out, EXACT[rows.start * 2..rows.end * 2], "{name} {rows:?}");
        }
        #[expect(clippy::reversed_empty_ranges)]
        for rows in [0..4, 4..4, 2..1, 0..usize::MAX] {
            assert!(matches!(checkpoint.read_rows(name, rows, &mut []), Err(Error::Damaged { .. })));
        }
        assert!(matches!(checkpoint.read_rows(name, 0..1, &mut [0.0; 3]), Err(Error::Shape { .. })));
    }
}

#[test]
fn a_vector_is_one_row_and_shapes_and_names_are_checked() {
    let file =
        serialised(&[("norm", Dtype::F32, vec![6], stored(Dtype::F32)), ("one", Dtype::F32, vec![], vec![0; 4])]);
    let folder = folder(&[("model.safetensors", &file)]);
    let checkpoint = Safetensors::open(folder.path()).expect("opening");
    assert_eq!(checkpoint.read_vector("norm", 6).expect("reading"), EXACT);
    checkpoint.read_rows("one", 0..1, &mut [1.0]).expect("a scalar");
    let error = checkpoint.read_vector("norm", 7).expect_err("too long");
    assert!(matches!(&error, Error::TensorShape { got, expected, .. } if got == &[6] && expected == &[7]), "{error}");
    assert!(matches!(checkpoint.read_vector("nor", 6), Err(Error::MissingTensor { name, .. }) if name == "nor"));
}

#[test]
fn a_tensor_of_another_type_harms_only_who_asks_for_it() {
    let file = serialised(&[("ids", Dtype::I64, vec![1], vec![0; 8]), ("w", Dtype::F32, vec![6], stored(Dtype::F32))]);
    let folder = folder(&[("model.safetensors", &file)]);
    let checkpoint = Safetensors::open(folder.path()).expect("opening");
    checkpoint.read_vector("w", 6).expect("the other tensor");
    assert!(checkpoint.find("ids").is_none());
    for result in [checkpoint.expect("ids", &[1]).map(drop), checkpoint.read_rows("ids", 0..1, &mut [0.0])] {
        let error = result.expect_err("a type we do not read");
        assert!(matches!(&error, Error::TensorType { got, .. } if got == "I64"), "{error}");
    }
}

#[test]
fn shards_are_read_through_the_index() {
    let whole = tempfile::tempdir().expect("a folder");
    let parts = tempfile::tempdir().expect("a folder");
    let recipe = Recipe { shards: 1, ..Recipe::qwen3(3) };
    let tensors = recipe.write(whole.path());
    Recipe { shards: 3, ..recipe }.write(parts.path());
    let (whole, sharded) =
        (Safetensors::open(whole.path()).expect("one file"), Safetensors::open(parts.path()).expect("three"));
    assert_eq!(whole.tensors(), sharded.tensors());
    for (name, tensor) in &tensors {
        let mut out = vec![0.0; tensor.values.len()];
        let rows = if tensor.shape.len() == 1 { 1 } else { tensor.shape[0] };
        sharded.read_rows(name, 0..rows, &mut out).expect("reading");
        assert_eq!(out, tensor.values, "{name}");
    }
    // Without an index, every file counts.
    std::fs::remove_file(parts.path().join("model.safetensors.index.json")).expect("removing");
    assert_eq!(Safetensors::open(parts.path()).expect("no index").tensors(), whole.tensors());
}

#[test]
fn an_index_that_does_not_hold_is_refused() {
    let file = serialised(&[("w", Dtype::F32, vec![6], stored(Dtype::F32))]);
    let with_index = |index: Value| {
        let index = index.to_string();
        fault_of(&[("part.safetensors", &file), ("model.safetensors.index.json", index.as_bytes())])
    };
    assert!(with_index(json!({"weight_map": {"w": "gone.safetensors"}})).contains("gone.safetensors"));
    assert!(with_index(json!({"weight_map": {"w": "part.safetensors", "v": "part.safetensors"}})).contains("\"v\""));
    for outside in
        ["../part.safetensors", "/etc/passwd", "a/../../b", "..", "", ".", "C:\\x", "..\\part.safetensors", "C:x"]
    {
        let message = with_index(json!({"weight_map": {"w": outside}}));
        assert!(message.contains("outside the folder"), "{outside}: {message}");
    }
    for (index, named) in [
        (json!({}), "weight_map"),
        (json!({"weight_map": []}), "weight_map"),
        (json!({"weight_map": {}}), "weight_map"),
        (json!({"weight_map": {"w": 3}}), "weight_map.w"),
        (json!(3), "index.json"),
    ] {
        assert!(with_index(index.clone()).contains(named), "{index}");
    }
    assert!(fault_of(&[("a.safetensors", &file), ("b.safetensors", &file)]).contains("also in"));
    assert!(fault_of(&[("pytorch_model.bin", &file)]).contains("*.safetensors"));
    assert!(fault_of(&[("model.safetensors.index.json", b"{")]).contains("not JSON"));
}

/// A file with the given header and `data` bytes after it.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()).chain(vec![0; data]).collect()
}

#[test]
fn a_header_that_lies_is_refused() {
    let good = r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    Safetensors::open(folder(&[("model.safetensors", &with_header(good, 16))]).path()).expect("a good header");
    let two = |second: usize| {
        let first = r#""v":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}"#;
        format!(r#"{{{first},"w":{{"dtype":"U8","shape":[9],"data_offsets":[{second},{}]}}}}"#, second + 9)
    };
    Safetensors::open(folder(&[("model.safetensors", &with_header(&two(9), 18))]).path()).expect("side by side");
    for (header, data) in [
        (good, 15),
        (good, 17),
        (good, 0),
        ("", 0),
        ("{", 0),
        ("[]", 0),
        ("\u{0}", 0),
        (r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,8]}}"#, 8),
        (r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[16,0]}}"#, 16),
        (r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[-1,15]}}"#, 16),
        (r#"{"w":{"dtype":"F99","shape":[2,2],"data_offsets":[0,16]}}"#, 16),
        (r#"{"w":{"dtype":"F32","shape":"big","data_offsets":[0,16]}}"#, 16),
        (r#"{"w":{"dtype":"F32","shape":[4611686018427387905,4],"data_offsets":[0,16]}}"#, 16),
        (r#"{"w":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,16]}}"#, 16),
        (&two(8), 17),
        (&two(10), 19),
    ] {
        let message = fault_of(&[("model.safetensors", &with_header(header, data))]);
        assert!(message.contains("model.safetensors"), "{message}");
    }
    // Tensors whose sizes add up to 2^64.
    let size = 1u64 << 60;
    let entry = |index: u64| {
        let end = (index as u128 + 1) * u128::from(size);
        let end = end.min(u128::from(u64::MAX));
        format!(
            r#""t{index}":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{end}]}}"#,
            end as u64 - index * size,
            index * size
        )
    };
    let header = format!("{{{}}}", (0..16).map(entry).collect::<Vec<_>>().join(","));
    fault_of(&[("model.safetensors", &with_header(&header, 7))]);
    for length in [0, 1, 7, 8] {
        fault_of(&[("model.safetensors", &vec![0xFF; length])]);
    }
}

#[test]
fn a_shape_without_elements_does_no_harm() {
    let open = |shape: &str| {
        let header = format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}"#);
        let folder = folder(&[("model.safetensors", &with_header(&header, 0))]);
        Safetensors::open(folder.path())
    };
    let nothing = open("[0,18446744073709551615,2]").expect("a tensor of nothing");
    nothing.read_rows("w", 0..0, &mut []).expect("no rows");
    assert!(matches!(nothing.read_rows("w", 0..1, &mut [0.0; 2]), Err(Error::Damaged { .. })));
    assert!(matches!(open("[18446744073709551615,2,0]"), Err(Error::Damaged { .. })));
}

proptest! {
    #[test]
    fn no_damage_panics(
        position in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = serialised(&[
            ("a.weight", Dtype::F32, vec![3, 2], stored(Dtype::F32)),
            ("b.weight", Dtype::BF16, vec![2, 3], stored(Dtype::BF16)),
        ]);
        // Damage to the header is what matters; the tensors are any bytes.
        let header = file.len() - 36;
        file[position.index(header)] = byte;
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let folder = folder(&[("model.safetensors", &file)]);
        if let Ok(checkpoint) = Safetensors::open(folder.path()) {
            for tensor in checkpoint.tensors() {
                let elements: usize = tensor.shape.iter().product();
                let rows = if tensor.shape.len() > 1 { tensor.shape[0] } else { 1 };
                checkpoint.read_rows(&tensor.name, 0..rows, &mut vec![0.0; elements]).unwrap();
            }
        }
    }
}
