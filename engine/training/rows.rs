//! Samples to the rows of a training pass, as arXiv:2504.18583 has them: a sample's tokens, then chains of mask tokens.
//!
//! A chain hangs at an anchor, the last token that its masks see; its masks stand at the positions after the anchor and
//! see the anchor's tokens and one another, which is what the decoder shows them. Conditional drop-token (COD) shortens
//! chains at random and never holes them, so all that a row sees, and all that see it, are two ranges of rows.

use std::ops::Range;

use fastrand::Rng;

use crate::ops::gradients::TrainingRow;

/// A text to learn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its tokens, those of its prompt included.
    pub tokens: Vec<u32>,
    /// `true` for each token that is to be predicted; as long as `tokens`.
    pub labelled: Vec<bool>,
}

/// Number of masks laid out for a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CodRetention {
    /// Tokens predicted at once, K_train: the next one and those of `segments - 1` masks.
    pub segments: usize,
    /// Segment s keeps `ratio^s` of its rows.
    pub ratio: f64,
    /// Smallest part of its rows that a segment keeps.
    pub least: f64,
}

impl CodRetention {
    /// The part of the rows that segment `segment` keeps.
    fn share(&self, segment: usize) -> f64 {
        self.ratio.powi(segment as i32).max(self.least).min(1.0)
    }

    /// The most rows that a sample of `tokens` tokens takes.
    pub fn max_rows(&self, tokens: usize) -> usize {
        let kept = |segment| (self.share(segment) * tokens as f64).ceil() as usize;
        tokens + (1..self.segments).map(kept).sum::<usize>()
    }
}

/// The rows of one pass.
#[derive(Debug, Clone, Default)]
pub struct PackedRows {
    /// Ranges of rows that each row sees, and that see it.
    pub rows: Vec<TrainingRow>,
    /// Input of each row: a token, or the mask.
    pub ids: Vec<u32>,
    /// The token that each row is to predict, if any.
    pub labels: Vec<Option<u32>>,
    /// Number of masks that each row has read, itself included.
    pub segments: Vec<usize>,
}

impl PackedRows {
    /// The rows of `sample`.
    pub fn of(sample: &Sample, retention: &CodRetention, mask: u32, random: &mut Rng) -> PackedRows {
        let mut packed = PackedRows::default();
        let tokens = &sample.tokens;
        // The last token predicts nothing, and nothing that has a label sees it.
        let reals = tokens.len().saturating_sub(1);
        let lengths = chain_lengths(sample, retention, random);
        let end = (reals + lengths.iter().sum::<usize>()) as u32;
        let mut chain = reals as u32;
        let label = |at: usize| sample.labelled[at].then_some(tokens[at]);
        for (position, &length) in lengths.iter().enumerate() {
            let row = position as u32;
            packed.rows.push(TrainingRow {
                context_first: 0,
                context_end: row + 1,
                chain_first: row + 1,
                real_first: row,
                real_end: reals as u32,
                later_first: chain,
                later_end: end,
                position: position as u32,
            });
            packed.ids.push(tokens[position]);
            packed.labels.push(label(position + 1));
            packed.segments.push(0);
            chain += length as u32;
        }
        for (anchor, &length) in lengths.iter().enumerate() {
            let chain_first = packed.rows.len() as u32;
            for segment in 1..=length {
                let row = packed.rows.len() as u32;
                packed.rows.push(TrainingRow {
                    context_first: 0,
                    context_end: anchor as u32 + 1,
                    chain_first,
                    real_first: row,
                    real_end: chain_first + length as u32,
                    later_first: row,
                    later_end: row,
                    position: (anchor + segment) as u32,
                });
                packed.ids.push(mask);
                packed.labels.push(label(anchor + segment + 1));
                packed.segments.push(segment);
            }
        }
        packed
    }

    /// Appends `other`, whose rows move down.
    pub fn append(&mut self, other: PackedRows) {
        let by = self.rows.len() as u32;
        self.rows.extend(other.rows.into_iter().map(|row| TrainingRow {
            context_first: row.context_first + by,
            context_end: row.context_end + by,
            chain_first: row.chain_first + by,
            real_first: row.real_first + by,
            real_end: row.real_end + by,
            later_first: row.later_first + by,
            later_end: row.later_end + by,
            position: row.position,
        }));
        self.ids.extend(other.ids);
        self.labels.extend(other.labels);
        self.segments.extend(other.segments);
    }

    /// The rows that hold each sample's tokens.
    pub fn samples(&self) -> Vec<Range<usize>> {
        let mut samples: Vec<Range<usize>> = Vec::new();
        for (row, _) in self.segments.iter().enumerate().filter(|&(_, &segment)| segment == 0) {
            match samples.last_mut().filter(|last| last.start == self.rows[row].context_first as usize) {
                Some(last) => last.end = row + 1,
                None => samples.push(row..row + 1),
            }
        }
        samples
    }

    /// The row of the token that stands where `row` does: its own, unless it is a mask.
    pub fn token_row(&self, row: usize) -> usize {
        (self.rows[row].context_first + self.rows[row].position) as usize
    }

    /// Rows that have something to predict.
    pub fn labelled(&self) -> usize {
        self.labels.iter().flatten().count()
    }
}

/// The number of masks at each token of `sample` but the last. A chain grows while it has something to predict, and
/// segment s is drawn from the chains that segment s - 1 has kept.
fn chain_lengths(sample: &Sample, retention: &CodRetention, random: &mut Rng) -> Vec<usize> {
    let reals = sample.tokens.len().saturating_sub(1);
    let mut lengths = vec![0; reals];
    let predicts = |anchor: usize, segment: usize| sample.labelled.get(anchor + segment + 1) == Some(&true);
    let mut kept: Vec<usize> = (0..reals).filter(|&anchor| predicts(anchor, 0)).collect();
    let positions = kept.len();
    for segment in 1..retention.segments {
        kept.retain(|&anchor| predicts(anchor, segment));
        random.shuffle(&mut kept);
        kept.truncate((retention.share(segment) * positions as f64).ceil() as usize);
        for &anchor in &kept {
            lengths[anchor] = segment;
        }
    }
    lengths
}
