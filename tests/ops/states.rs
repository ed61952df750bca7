//! `remember` and `recall` on the device: what is kept of a row is its bits over their size, at its position; what is read
//! is that of the position before, or nothing.

use pard::low_level::gpu::{Buffer, Device};
use pard::low_level::ops::{HiddenStates, LoadHidden, PassRow, Rows, Session, Step, StoreHidden};

use super::{compare, input, output, read, step, submit};
use crate::oracle::Expected;
use crate::oracle::remember::remember;
use crate::support::gpu::device;
use crate::support::random::Random;

const EPSILON: f32 = 1e-5;

/// Sessions of three slots, whose targets have all been as far.
fn sessions(device: &Device, target_rows: usize) -> Buffer {
    let session = Session { tokens: 0, target_rows: target_rows as u32, draft_rows: 0 };
    Buffer::with_values(device, "sessions", &[session; 3]).expect("a buffer")
}

#[test]
fn a_row_reads_what_was_kept_of_the_position_before() {
    let mut random = Random::new(91);
    for (width, parts) in [(4, 1), (24, 3), (136, 1), (576, 4), (1000, 2)] {
        for (first, rows) in [(0, 1), (0, 32), (7, 5), (33, 17)] {
            let positions = 64;
            let states = HiddenStates::new(device(), positions, parts, width).expect("room");
            let at = step(device(), Step { start: first as u32, rows: rows as u32, ..Step::default() });
            let mut kept = vec![Expected::default(); rows];
            for part in 0..parts {
                let x = random.normals(rows * width, 10f32.powi(2 * part as i32 - 2));
                let op = StoreHidden::new(device(), &at, 0, &input(device(), width, &x), EPSILON, &states, part);
                submit(device(), |pass| op.expect("shapes that fit").encode(pass, rows));
                for (row, kept) in x.chunks(width).zip(&mut kept) {
                    let expected = remember(row, width, EPSILON);
                    kept.values.extend(expected.values);
                    kept.bound.extend(expected.bound);
                }
            }
            // The target has read all of them but the last two, and the draft reads one more.
            let known = (first + rows).saturating_sub(2);
            let y = output(device(), rows + 1, parts * width);
            let op =
                LoadHidden::new(device(), &at, 0, &sessions(device(), known), &states, &y).expect("shapes that fit");
            submit(device(), |pass| op.encode(pass, rows + 1));
            let actual = read(device(), "recall", &y, rows + 1);
            for (row, actual) in actual.chunks(parts * width).enumerate() {
                let position = first + row;
                let context = format!("position {position} of {first} + {rows}, {parts} of {width}");
                if row > 0 && position <= known {
                    compare(device(), "recall", &context, actual, &kept[row - 1]);
                } else {
                    // No states were kept of tokens before the first row.
                    assert!(actual.iter().all(|&value| value == 0.0), "{context}");
                }
            }
        }
    }
}

#[test]
fn rows_of_other_sequences_are_passed_over() {
    let (width, positions) = (40, 16);
    let x = Random::new(92).normals(6 * width, 1.0);
    let places = [(1, 3), (0, 9), (1, 4), (2, 4), (0, 10), (1, 5)];
    let mut batch = [PassRow::default(); 32];
    for (row, (slot, position)) in batch.iter_mut().zip(places) {
        *row = PassRow { slot, position, ..PassRow::default() };
    }
    let buffer = PassRow::buffer(device()).expect("room");
    buffer.write(device(), 0, &batch);
    let at = step(device(), Step { rows: 6, ..Step::default() });
    let rows = Rows::Many { step: &at, batch: &buffer };
    let x_rows = input(device(), width, &x);
    let y = output(device(), 6, width);
    // A position past the room is nobody's.
    let small = HiddenStates::new(device(), 4, 1, width).expect("room");
    let op = StoreHidden::new(device(), rows, 1, &x_rows, EPSILON, &small, 0).expect("shapes that fit");
    submit(device(), |pass| op.encode(pass, 6));
    for slot in [0, 1] {
        let states = HiddenStates::new(device(), positions, 1, width).expect("room");
        let keep = StoreHidden::new(device(), rows, slot, &x_rows, EPSILON, &states, 0).expect("shapes that fit");
        let recall =
            LoadHidden::new(device(), rows, slot, &sessions(device(), 16), &states, &y).expect("shapes that fit");
        submit(device(), |pass| {
            keep.encode(pass, 6);
            recall.encode(pass, 6);
        });
    }
    let actual = read(device(), "recall", &y, 6);
    let before = [None, None, Some(0), None, Some(1), Some(2)];
    for (row, before) in before.into_iter().enumerate() {
        let actual = &actual[row * width..][..width];
        match (before, places[row].0) {
            (Some(before), _) => {
                let expected = remember(&x[before * width..][..width], width, EPSILON);
                compare(device(), "recall", &format!("row {row}"), actual, &expected);
            }
            // No operation reads this row's slot.
            (None, 2) => assert!(actual.iter().all(|value| value.is_nan()), "row {row}"),
            (None, _) => assert!(actual.iter().all(|&value| value == 0.0), "row {row}"),
        }
    }
}
