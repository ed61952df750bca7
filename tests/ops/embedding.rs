//! `embedding` on the device.

use pard::low_level::gpu::Device;
use pard::low_level::ops::{Embedding, MaskRow, Matrix, WeightFormat};

use super::matmul::{FORMATS, upload, values_in};
use super::{WIDTHS, compare, output, read, row_counts, same_bits, submit, vector, words};
use crate::oracle::embedding::embedding;
use crate::support::gpu::{device, device_with_binding_limit};
use crate::support::random::Random;

/// The kernel's rows for `ids`.
pub fn run(device: &Device, table: &Matrix, ids: &[u32]) -> Vec<f32> {
    run_masked(device, table, None, ids)
}

fn run_masked(device: &Device, table: &Matrix, mask: Option<MaskRow>, ids: &[u32]) -> Vec<f32> {
    let y = output(device, ids.len(), table.columns());
    let ids_buffer = words(device, ids.len().max(64), ids);
    let op = Embedding::new(device, table, mask, &ids_buffer, &y).expect("shapes that fit");
    submit(device, |pass| op.encode(pass, ids.len()));
    read(device, "embedding", &y, ids.len())
}

/// `count` ids that hold the first and the last, and some twice.
fn ids(random: &mut Random, count: usize, vocab: usize) -> Vec<u32> {
    let mut ids = random.indices(count, vocab);
    ids[count / 2] = vocab as u32 - 1;
    ids[0] = if count > 2 { 0 } else { vocab as u32 - 1 };
    ids
}

#[test]
fn embedding_is_the_table_row() {
    let mut random = Random::new(11);
    let plan = device().default_plan();
    for format in FORMATS {
        for width in WIDTHS {
            for vocab in [1, 3, 33, 257] {
                let values = values_in(format, &mut random, vocab * width, 1.0);
                let table = upload(device(), &plan, format, [vocab, width], &values);
                for rows in row_counts().into_iter().chain([100]) {
                    let ids = ids(&mut random, rows, vocab);
                    let context = format!("{format:?}, [{vocab}, {width}], {rows} rows");
                    let actual = run(device(), &table, &ids);
                    compare(device(), "embedding", &context, &actual, &embedding(&values, width, &ids));
                }
            }
        }
    }
}

#[test]
fn ids_past_the_vocabulary_read_its_last_row() {
    let (vocab, width) = (37, 40);
    let plan = device().default_plan();
    let values = values_in(WeightFormat::Bf16, &mut Random::new(12), vocab * width, 1.0);
    let table = upload(device(), &plan, WeightFormat::Bf16, [vocab, width], &values);
    let actual = run(device(), &table, &[36, 37, 64, 1000, u32::MAX]);
    assert!(actual.chunks(width).all(|row| row == &values[36 * width..]));
}

/// The mask's row stands in for the table's, or for one that the table does not have; of a table in parts it is written
/// once, whichever part its id lies in.
#[test]
fn the_mask_has_a_row_of_its_own() {
    let (vocab, width) = (1000, 136);
    let limited = device_with_binding_limit(50_000);
    let plan = device().default_plan();
    let mut random = Random::new(14);
    for format in FORMATS {
        let values = values_in(format, &mut random, vocab * width, 1.0);
        // As trained: in f32, whatever the table's format is.
        let row_values = random.normals(width, 1.0);
        for device in [device(), &limited] {
            let table = upload(device, &plan, format, [vocab, width], &values);
            let row = vector(device, &row_values);
            for id in [0, 500, 999, 1000, u32::MAX] {
                let ids = [3, id, id, 7, 999, id];
                let rows = run_masked(device, &table, Some(MaskRow { id, row: &row }), &ids);
                let of = |other: u32| match other == id {
                    true => &row_values[..],
                    false => &values[other as usize * width..][..width],
                };
                let expected: Vec<f32> = ids.iter().flat_map(|&id| of(id)).copied().collect();
                same_bits(&format!("{format:?}, mask {id}"), &rows, &expected);
            }
        }
    }
}

#[test]
fn a_table_in_parts_gives_the_same_rows() {
    let (vocab, width) = (1000, 136);
    let limited = device_with_binding_limit(50_000);
    let plan = device().default_plan();
    let mut random = Random::new(13);
    for format in FORMATS {
        let values = values_in(format, &mut random, vocab * width, 1.0);
        let table = upload(&limited, &plan, format, [vocab, width], &values);
        assert!(table.bytes() > 4 * limited.largest_binding(), "in parts");
        let all: Vec<u32> = (0..vocab as u32).collect();
        for ids in all.chunks(32) {
            let expected: Vec<f32> =
                ids.iter().flat_map(|&id| &values[id as usize * width..][..width]).copied().collect();
            same_bits("a table in parts", &run(&limited, &table, ids), &expected);
        }
    }
}
