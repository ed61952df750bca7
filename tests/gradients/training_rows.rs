//! The rows of a packed step, straight from the definition of PARD's training, and that both of its spellings agree:
//! what a row sees, and what sees a row.

use pard::low_level::ops::gradients::TrainingRow;

use crate::support::random::Random;

/// Rows by their definition.
pub struct Packed {
    pub rows: Vec<TrainingRow>,
    /// Sample, segment and position: a real token is of segment 0, mask s of a chain of segment s.
    elements: Vec<[usize; 3]>,
}

impl Packed {
    /// Samples whose token `i` has a chain of `samples[_][i]` masks.
    pub fn new(samples: &[Vec<usize>]) -> Packed {
        let mut packed = Packed { rows: vec![], elements: vec![] };
        for (sample, chains) in samples.iter().enumerate() {
            let first = packed.rows.len();
            let (real_end, end) = (first + chains.len(), first + chains.len() + chains.iter().sum::<usize>());
            let mut later = real_end;
            for (position, chain) in chains.iter().enumerate() {
                let row = first + position;
                packed.push([sample, 0, position], [first, row + 1, row + 1, row, real_end, later, end]);
                later += chain;
            }
            let mut row = real_end;
            for (anchor, &chain) in chains.iter().enumerate() {
                let chain_end = row + chain;
                for segment in 1..=chain {
                    let chain_first = chain_end - chain;
                    let ranges = [first, first + anchor + 1, chain_first, row, chain_end, chain_end, chain_end];
                    packed.push([sample, segment, anchor + segment], ranges);
                    row += 1;
                }
            }
        }
        packed
    }

    fn push(&mut self, element: [usize; 3], ranges: [usize; 7]) {
        let [context_first, context_end, chain_first, real_first, real_end, later_first, later_end] =
            ranges.map(|row| row as u32);
        let position = element[2] as u32;
        self.elements.push(element);
        self.rows.push(TrainingRow {
            context_first,
            context_end,
            chain_first,
            real_first,
            real_end,
            later_first,
            later_end,
            position,
        });
    }

    /// Returns `true` if row `i` sees row `j`: (s, p) sees the real tokens 0..=p-s of its sample and its own chain's masks.
    fn sees(&self, i: usize, j: usize) -> bool {
        let ([sample, segment, position], [other, other_segment, other_position]) =
            (self.elements[i], self.elements[j]);
        let anchor = position - segment;
        sample == other
            && if other_segment == 0 {
                other_position <= anchor
            } else {
                other_segment <= segment && other_position - other_segment == anchor
            }
    }

    /// The rows that each row sees.
    pub fn seen(&self) -> Vec<Vec<usize>> {
        let rows = 0..self.rows.len();
        rows.clone().map(|i| rows.clone().filter(|&j| self.sees(i, j)).collect()).collect()
    }
}

/// Chains of a sample of `len` tokens, where segment s keeps `ratio`^s of the positions, but `least` of them, drawn from
/// those that follow a kept one of the segment before.
pub fn dropped(random: &mut Random, len: usize, segments: usize, ratio: f64, least: f64) -> Vec<usize> {
    let mut chains = vec![0; len];
    for segment in 1..segments {
        // Anchors whose chains reach the segment before and have a position to go on to.
        let mut candidates: Vec<usize> =
            (0..len.saturating_sub(segment)).filter(|&anchor| chains[anchor] == segment - 1).collect();
        let kept = (ratio.powi(segment as i32).max(least) * len as f64).round() as usize;
        while candidates.len() > kept {
            candidates.swap_remove(random.below(candidates.len()));
        }
        candidates.into_iter().for_each(|anchor| chains[anchor] = segment);
    }
    chains
}

/// Samples of every kind: alone and with others, with all chains, none, a few and some.
pub fn layouts(random: &mut Random) -> Vec<(&'static str, Packed)> {
    let ends = |len: usize| {
        let mut chains = vec![0; len];
        chains[0] = len.min(5) - 1;
        chains[len - 2] = 1;
        chains
    };
    let mut some = |lens: &[usize]| -> Vec<_> { lens.iter().map(|&len| dropped(random, len, 8, 0.7, 0.2)).collect() };
    vec![
        ("one token", Packed::new(&[vec![0]])),
        ("tokens alone", Packed::new(&[vec![0], vec![0], vec![0]])),
        ("no chains", Packed::new(&[vec![0; 37], vec![0; 2], vec![0; 40]])),
        ("all chains", Packed::new(&[vec![3, 3, 3, 3, 3, 2, 1, 0], vec![1, 0]])),
        ("the first and the last anchor", Packed::new(&[ends(33), ends(2), ends(7)])),
        ("some chains", Packed::new(&some(&[20, 1, 33, 2, 17]))),
        ("tiles of chains", Packed::new(&some(&[70, 5, 64, 1]))),
    ]
}

#[test]
fn what_a_row_sees_and_what_sees_a_row_agree() {
    for seed in 0..20 {
        for (name, packed) in layouts(&mut Random::new(seed)) {
            for (i, row) in packed.rows.iter().enumerate() {
                for (j, other) in packed.rows.iter().enumerate() {
                    let sees = packed.sees(i, j);
                    let context = format!("{name}, seed {seed}: row {i} {row:?}, row {j} {other:?}");
                    let (i, j) = (i as u32, j as u32);
                    let by_row =
                        (row.context_first..row.context_end).contains(&j) || (row.chain_first..=i).contains(&j);
                    let by_other = (other.real_first..other.real_end).contains(&i)
                        || (other.later_first..other.later_end).contains(&i);
                    assert_eq!((by_row, by_other), (sees, sees), "{context}");
                }
            }
        }
    }
}

#[test]
fn dropped_chains_keep_the_share_that_is_asked_for() {
    let chains = dropped(&mut Random::new(3), 1000, 8, 0.7, 0.2);
    let rows = chains.iter().filter(|&&chain| chain > 0).count();
    assert_eq!(rows, 700);
    let kept: usize = chains.iter().sum();
    assert!((2300..=2420).contains(&kept), "{kept} masks for 1000 tokens, about 2.4 times as many are meant");
}
