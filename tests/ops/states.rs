//! `remember`, `keep` and `recall` on the device: features are states by a factor, what is kept is bit for bit at its place,
//! and a row reads that of its own position, or of the last that there is.

use fastrand::Rng;
use pard::low_level::gpu::Buffer;
use pard::low_level::ops::{Keep, KeptStates, PassRow, Recall, Remember, Rows, Session, StateNorm, Step};

use super::{compare, input, output, read, step, submit};
use crate::oracle::remember::remember;
use crate::support::gpu::device;
use crate::support::random::Random;

const EPSILON: f32 = 1e-5;

#[test]
fn features_are_states_side_by_side() {
    let mut random = Random::new(91);
    for (width, parts, rows) in [(4, 1, 1), (24, 3, 32), (136, 1, 5), (576, 4, 17), (1000, 2, 33)] {
        let features = output(device(), rows.max(32), parts * width);
        let mut expected = Vec::new();
        for part in 0..parts {
            // Large states of deep layers among them, beyond what 16 bits hold.
            let x = random.normals(rows * width, 10f32.powi(3 * part as i32 - 2));
            let gains = random.normals(width, 1.0);
            let gain = input(device(), width, &gains);
            let norm = part.is_multiple_of(2).then_some(StateNorm { gain: &gain, epsilon: EPSILON });
            let op = Remember::new(device(), &input(device(), width, &x), norm, 0.02, &features, part);
            submit(device(), |pass| op.expect("shapes that fit").encode(pass, rows));
            let of_row = |row: &[f32]| remember(row, norm.map(|_| (&gains[..], EPSILON)), 0.02);
            expected.push(x.chunks(width).map(of_row).collect::<Vec<_>>());
        }
        let actual = read(device(), "remember", &features, rows);
        for (index, actual) in actual.chunks(width).enumerate() {
            let (row, part) = (index / parts, index % parts);
            let context = format!("row {row}, part {part} of {parts}, {width} wide");
            compare(device(), "remember", &context, actual, &expected[part][row]);
        }
    }
}

/// Rows of three slots, in passes over one and over several of them, with all that was kept before still there.
#[test]
fn a_row_reads_what_was_kept_for_its_position_or_the_last() {
    const SLOTS: usize = 3;
    const POSITIONS: usize = 20;
    for (seed, width) in [(1, 4), (2, 36), (3, 260)] {
        let mut random = Random::new(seed);
        let mut choice = Rng::with_seed(seed);
        let first = random.normals(width, 1.0);
        let kept = KeptStates::new(device(), [SLOTS, POSITIONS], &first).expect("room");
        let mut mirror = vec![vec![vec![0.0; width]; POSITIONS]; SLOTS];
        mirror.iter_mut().for_each(|slot| slot[0].clone_from(&first));
        for turn in 0..6 {
            let joint = turn % 2 == 1;
            let slot = choice.usize(..SLOTS);
            let start = choice.usize(..POSITIONS - 8);
            let places: Vec<(usize, usize)> = match joint {
                true => (0..9).map(|row| (row % SLOTS, start + row / SLOTS)).collect(),
                // The last is past the room, and nobody's.
                false => (0..POSITIONS - start).map(|row| (slot, start + row)).collect(),
            };
            let mut batch = [PassRow::default(); 32];
            for (row, &(slot, position)) in batch.iter_mut().zip(&places) {
                *row = PassRow { slot: slot as u32, position: position as u32, ..PassRow::default() };
            }
            let buffer = PassRow::buffer(device()).expect("room");
            buffer.write(device(), 0, &batch);
            let count = places.len();
            let at = Step { start: start as u32, slot: slot as u32, rows: count as u32, ..Step::default() };
            let at = step(device(), at);
            let rows = if joint { Rows::Many { step: &at, batch: &buffer } } else { Rows::One(&at) };
            let x = random.normals(count * width, 1e5);
            let keep = Keep::new(device(), rows, &input(device(), width, &x), &kept).expect("shapes that fit");
            submit(device(), |pass| keep.encode(pass, count));
            for (&(slot, position), row) in places.iter().zip(x.chunks(width)) {
                if position + 1 < POSITIONS {
                    mirror[slot][position + 1] = row.to_vec();
                }
            }
            let known = choice.usize(start..POSITIONS);
            let session = Session { tokens: 0, target_rows: known as u32, draft_rows: 0 };
            let sessions = Buffer::with_values(device(), "sessions", &[session; SLOTS]).expect("a buffer");
            for repeats in [true, false] {
                let h = random.normals(count * width, 1.0);
                let embedded = input(device(), width, &h);
                let recall =
                    Recall::new(device(), rows, &sessions, &kept, repeats, &embedded).expect("shapes that fit");
                submit(device(), |pass| recall.encode(pass, count));
                let actual: Vec<f32> = embedded.buffer.read(device(), 0, (count + 1) * width).expect("reading back");
                assert!(actual[count * width..].iter().all(|value| value.is_nan()), "written beyond {count} rows");
                for (row, &(slot, position)) in places.iter().enumerate() {
                    let added = &mirror[slot][position.min(known)];
                    for (column, added) in added.iter().enumerate() {
                        let at = row * width + column;
                        let expected = if position <= known || repeats { h[at] + added } else { h[at] };
                        assert_eq!(
                            actual[at], expected,
                            "turn {turn}, slot {slot}, position {position}, known {known}"
                        );
                    }
                }
            }
        }
    }
}
