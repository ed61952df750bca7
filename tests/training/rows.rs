//! The rows of a training pass against the definition: element (s, p) reads a mask (or the token, s = 0), stands at p,
//! sees the tokens 0..=p-s and the masks (1, p-s+1) .. (s, p), and predicts token p + 1.

use std::collections::{HashMap, HashSet};

use fastrand::Rng;
use pard::low_level::training::{CodRetention, PackedRows, Sample};
use proptest::prelude::*;

const MASK: u32 = 9999;

/// A sample, the number of its first row, and its elements (s, p) with the rows that hold them.
struct Elements {
    rows: HashMap<(usize, usize), usize>,
}

impl Elements {
    fn of(packed: &PackedRows, rows: std::ops::Range<usize>) -> Elements {
        let element = |row: usize| (packed.segments[row], packed.rows[row].position as usize);
        let found: HashMap<_, _> = rows.clone().map(|row| (element(row), row)).collect();
        assert_eq!(found.len(), rows.len(), "two rows are the same element");
        Elements { rows: found }
    }

    /// The rows that element (s, p) is to see.
    fn seen_by(&self, (segment, position): (usize, usize)) -> HashSet<usize> {
        let anchor = position - segment;
        let tokens = (0..=anchor).map(|p| (0, p));
        let masks = (1..=segment).map(|s| (s, anchor + s));
        tokens.chain(masks).map(|element| self.rows[&element]).collect()
    }
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let sample = (2usize..40).prop_flat_map(|len| {
        let tokens = proptest::collection::vec(0u32..500, len);
        let labelled = proptest::collection::vec(any::<bool>(), len);
        (tokens, labelled, 0..len).prop_map(|(tokens, mut labelled, answer)| {
            // Mostly an answer after a prompt, sometimes anything.
            if answer % 3 > 0 {
                labelled.iter_mut().enumerate().for_each(|(at, labelled)| *labelled = at >= answer);
            }
            Sample { tokens, labelled }
        })
    });
    proptest::collection::vec(sample, 1..4)
}

proptest! {
    #[test]
    fn rows_see_and_predict_what_the_definition_says(
        samples in samples(),
        segments in 1usize..9,
        ratio in 0.0f64..1.0,
        least in 0.0f64..1.0,
        seed in any::<u64>(),
    ) {
        let retention = CodRetention { segments, ratio, least };
        let mut random = Rng::with_seed(seed);
        let mut packed = PackedRows::default();
        for sample in &samples {
            let first = packed.rows.len();
            packed.append(PackedRows::of(sample, &retention, MASK, &mut random));
            let rows = first..packed.rows.len();
            prop_assert!(rows.len() <= retention.max_rows(sample.tokens.len()));
            let elements = Elements::of(&packed, rows.clone());
            for (&(segment, position), &row) in &elements.rows {
                let at = packed.rows[row];
                let ranges = (at.context_first..at.context_end).chain(at.chain_first..row as u32 + 1);
                // A token's own row is the last of its context.
                let seen: HashSet<usize> = ranges.map(|row| row as usize).collect();
                prop_assert_eq!(&seen, &elements.seen_by((segment, position)), "({}, {})", segment, position);
                prop_assert_eq!(packed.ids[row], if segment == 0 { sample.tokens[position] } else { MASK });
                let label = sample.labelled[position + 1].then(|| sample.tokens[position + 1]);
                prop_assert_eq!(packed.labels[row], label);
                prop_assert!(segment == 0 || label.is_some(), "a mask without a label");

                let seers = (at.real_first..at.real_end).chain(at.later_first..at.later_end);
                let seers: HashSet<usize> = seers.map(|row| row as usize).collect();
                let expected: HashSet<usize> = elements
                    .rows
                    .iter()
                    .filter(|(element, _)| elements.seen_by(**element).contains(&row))
                    .map(|(_, &row)| row)
                    .collect();
                prop_assert_eq!(seers, expected, "who sees ({}, {})", segment, position);
            }
        }
    }
}

#[test]
fn segments_keep_their_share() {
    let sample = Sample { tokens: (0..101).collect(), labelled: vec![true; 101] };
    let retention = CodRetention { segments: 8, ratio: 0.7, least: 0.2 };
    let packed = PackedRows::of(&sample, &retention, MASK, &mut Rng::with_seed(7));
    let counts: Vec<usize> =
        (0..8).map(|segment| packed.segments.iter().filter(|&&other| other == segment).count()).collect();
    // 100 rows predict something; 70 %, 49 %, .. of them, and no less than 20 %. Few chains reach the end of the text.
    for (segment, share) in [1.0, 0.7, 0.49, 0.343, 0.2401, 0.2, 0.2, 0.2].into_iter().enumerate() {
        let expected = (100.0f64 * share).ceil() as usize;
        assert!(counts[segment] <= expected && counts[segment] + 6 >= expected, "{segment}: {counts:?}");
    }
    let all = PackedRows::of(&sample, &CodRetention { ratio: 1.0, ..retention }, MASK, &mut Rng::with_seed(7));
    assert_eq!(all.rows.len(), (0..8).map(|segment| 100 - segment).sum::<usize>());
    let again = PackedRows::of(&sample, &retention, MASK, &mut Rng::with_seed(7));
    assert_eq!((again.rows, again.ids), (packed.rows, packed.ids), "one seed, one choice");
}
