//! `embedding_gradient` on the device.

use pard::low_level::gpu::{Buffer, Device, KernelPlan};
use pard::low_level::ops::gradients::{EmbeddingGradient, Readers};
use pard::low_level::ops::{Matrix, Tensor, WeightFormat};

use super::finite_differences;
use crate::ops::matmul::upload;
use crate::ops::{compare, input, words};
use crate::oracle::embedding::embedding;
use crate::oracle::gradients::embedding::embedding_gradient;
use crate::support::gpu::{device, device_with_binding_limit};
use crate::support::random::Random;

/// The lists of who reads what, for tokens in the order given.
fn readers(device: &Device, order: &[u32], ids: &[Option<u32>]) -> [Buffer; 3] {
    let (mut firsts, mut rows) = (vec![0], Vec::new());
    for &id in order {
        rows.extend((0..ids.len() as u32).filter(|&row| ids[row as usize] == Some(id)));
        firsts.push(rows.len() as u32);
    }
    let buffer = |values: &[u32]| words(device, values.len() + 3, values);
    [buffer(order), buffer(&firsts), buffer(&rows)]
}

/// Tokens of `rows` rows: about half of them the last token, as of masks, and some rows that do not count.
fn tokens(random: &mut Random, rows: usize, vocab: usize) -> (Vec<u32>, Vec<Option<u32>>) {
    let ids: Vec<Option<u32>> = (0..rows)
        .map(|_| match random.below(5) {
            0 => None,
            1 | 2 => Some(random.below(vocab) as u32),
            _ => Some(vocab as u32 - 1),
        })
        .collect();
    let mut order: Vec<u32> = ids.iter().flatten().copied().collect();
    order.sort_unstable();
    order.dedup();
    order.reverse();
    (order, ids)
}

/// Index of a value in a part of a table: pieces of 8 of `lanes` rows are side by side.
fn interleaved_index(lanes: usize, width: usize, row: usize, column: usize) -> usize {
    let piece = (row / lanes * (width / 8) + column / 8) * lanes + row % lanes;
    8 * piece + column % 8
}

/// Rows that a table is padded to: what one row takes, over what a row is.
fn rows_of_a_group(plan: &KernelPlan, width: usize) -> usize {
    Matrix::expected_bytes(plan, WeightFormat::F32, [1, width]) as usize / (width * 4)
}

/// Checks the gradient of a whole table on `device`, where it takes `parts` parts.
fn check_table(device: &Device, random: &mut Random, [vocab, width, rows]: [usize; 3], parts: usize) {
    let plan = device.default_plan();
    let lanes = plan.lanes as usize;
    let table: Matrix = upload(device, &plan, WeightFormat::F32, [vocab, width], &vec![0.0; vocab * width]);
    // Parts are whole groups of rows, as many as a binding holds.
    let group = rows_of_a_group(&plan, width);
    let part_rows = if parts == 1 {
        vocab.next_multiple_of(group)
    } else {
        (device.largest_binding() as usize / (group * width * 4)) * group
    };
    assert_eq!(vocab.div_ceil(part_rows), parts, "as many parts as wanted");
    let before = random.normals(vocab * width, 1.0);
    let gradients: Vec<Buffer> = (0..parts)
        .map(|part| {
            let in_part = (vocab - part * part_rows).min(part_rows);
            let mut values = vec![0.0f32; in_part.next_multiple_of(group) * width];
            for row in 0..in_part {
                for column in 0..width {
                    values[interleaved_index(lanes, width, row, column)] =
                        before[(part * part_rows + row) * width + column];
                }
            }
            Buffer::with_values(device, "gradient", &values).expect("a small buffer")
        })
        .collect();
    let (order, ids) = tokens(random, rows, vocab);
    let dx = random.normals(rows * width, 1.0);
    let [order_words, firsts, list] = readers(device, &order, &ids);
    let readers = Readers { ids: &order_words, firsts: &firsts, rows: &list };
    let op = EmbeddingGradient::new(device, readers, &input(device, width, &dx), &table, &gradients);
    let op = op.expect("shapes that fit");
    crate::ops::submit(device, |pass| op.encode(pass, order.len(), rows));
    let mut actual = vec![f32::NAN; vocab * width];
    for (part, gradient) in gradients.iter().enumerate() {
        let values: Vec<f32> = gradient.read(device, 0, gradient.bytes() as usize / 4).expect("reading back");
        let in_part = (vocab - part * part_rows).min(part_rows);
        for row in 0..in_part {
            for column in 0..width {
                actual[(part * part_rows + row) * width + column] =
                    values[interleaved_index(lanes, width, row, column)];
            }
        }
    }
    let context = format!("[{vocab}, {width}], {rows} rows, {parts} parts");
    let expected = embedding_gradient(&before, width, &ids, &dx);
    compare(device, "embedding_gradient", &context, &actual, &expected);
}

#[test]
fn embedding_gradient_of_a_table_agrees_with_f64() {
    let mut random = Random::new(97);
    for width in [8, 24, 40, 72, 136, 1000] {
        for (vocab, rows) in [(1, 5), (3, 1), (33, 100), (257, 300)] {
            check_table(device(), &mut random, [vocab, width, rows], 1);
        }
    }
}

#[test]
fn embedding_gradient_of_a_table_in_parts_agrees_with_f64() {
    let limited = device_with_binding_limit(100_000);
    let width = 136;
    let group = rows_of_a_group(&limited.default_plan(), width);
    let part_rows = 100_000 / (group * width * 4) * group;
    check_table(&limited, &mut Random::new(98), [2 * part_rows + 5, width, 100], 3);
}

#[test]
fn embedding_gradient_of_one_row_agrees_with_f64() {
    let mut random = Random::new(99);
    for width in [8, 24, 64, 72, 136, 1000] {
        for rows in [1, 2, 7, 8, 9, 65, 700] {
            let ids: Vec<Option<u32>> = (0..rows).map(|_| (random.below(3) > 0).then_some(0)).collect();
            let (before, dx) = (random.normals(width, 1.0), random.normals(rows * width, 1.0));
            let gradient = Tensor::new(device(), "gradient", 1, width).expect("a small tensor");
            gradient.buffer.write(device(), 0, &before);
            let [order, firsts, list] = readers(device(), &[0], &ids);
            let readers = Readers { ids: &order, firsts: &firsts, rows: &list };
            let op = EmbeddingGradient::of_row(device(), readers, &input(device(), width, &dx), &gradient);
            let op = op.expect("shapes that fit");
            crate::ops::submit(device(), |pass| op.encode(pass, 1, rows));
            let actual: Vec<f32> = gradient.buffer.read(device(), 0, 2 * width).expect("reading back");
            assert!(actual[width..].iter().all(|&value| value == 0.0), "written beyond a row of {width}");
            let expected = embedding_gradient(&before, width, &ids, &dx);
            compare(device(), "embedding_gradient", &format!("[1, {width}], {rows} rows"), &actual[..width], &expected);
        }
    }
}

#[test]
fn embedding_gradient_is_that_of_finite_differences() {
    let mut random = Random::new(100);
    let (vocab, width) = (4, 3);
    let ids = [3u32, 0, 3, 2, 3];
    let (table, dy) = (random.normals(vocab * width, 1.0), random.normals(ids.len() * width, 1.0));
    let counted: Vec<Option<u32>> = ids.iter().copied().map(Some).collect();
    let gradient = embedding_gradient(&vec![0.0; vocab * width], width, &counted, &dy);
    let point: Vec<f64> = table.iter().copied().map(f64::from).collect();
    // Steps of a power of two, and the table's f32 rounded the same way on both sides, as the look-up is linear.
    finite_differences("table", &point, &gradient.values, 1e-2, |moved| {
        let rounded: Vec<f32> = moved.iter().map(|&value| value as f32).collect();
        let looked_up = embedding(&rounded, width, &ids).values;
        let lost: Vec<f64> = moved.iter().zip(&rounded).map(|(&value, &rounded)| value - f64::from(rounded)).collect();
        let value =
            |row: usize, column: usize| looked_up[row * width + column] + lost[ids[row] as usize * width + column];
        (0..ids.len() * width).map(|at| value(at / width, at % width) * f64::from(dy[at])).sum()
    });
}
