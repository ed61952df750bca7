//! Pearson's chi-square test.

/// Cells of counts beside what was expected of them; those of which too little is expected are taken together.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChiSquare {
    statistic: f64,
    cells: usize,
    rest: (f64, f64),
    /// Number of samples with cells of their own.
    samples: usize,
}

impl ChiSquare {
    /// Counts one sample of a distribution: `counts` of each outcome, and the weights that they should have.
    pub fn add(&mut self, weights: &[f64], counts: &[usize]) {
        assert_eq!(weights.len(), counts.len());
        let (all, total) = (counts.iter().sum::<usize>() as f64, weights.iter().sum::<f64>());
        let cells = self.cells;
        for (weight, &count) in weights.iter().zip(counts) {
            let (expected, seen) = (weight / total * all, count as f64);
            if expected >= 5.0 {
                self.cell(expected, seen);
            } else {
                self.rest = (self.rest.0 + expected, self.rest.1 + seen);
            }
        }
        self.samples += usize::from(self.cells > cells);
    }

    fn cell(&mut self, expected: f64, seen: f64) {
        self.statistic += (seen - expected).powi(2) / expected;
        self.cells += 1;
    }

    /// Fails unless the statistic is within five deviations of its mean: k - 1 and √(2 (k - 1)) for k cells.
    #[track_caller]
    pub fn check(mut self, context: &str, min_cells: usize) {
        let (expected, seen) = self.rest;
        if expected > 0.0 {
            self.cell(expected, seen);
        }
        assert!(self.cells >= min_cells, "{context}: {} cells", self.cells);
        let (freedom, statistic) = ((self.cells - self.samples) as f64, self.statistic);
        assert!(
            statistic <= freedom + 5.0 * (2.0 * freedom).sqrt(),
            "{context}: chi-square {statistic:.1} with {freedom} degrees of freedom"
        );
    }
}

#[test]
fn a_wrong_distribution_is_refused_and_the_right_one_is_not() {
    let mut random = super::random::Random::new(1);
    let weights = [8.0, 4.0, 2.0, 1.0, 1.0];
    let drawn = |random: &mut super::random::Random| {
        let mut counts = [0; 5];
        for _ in 0..4000 {
            let at = random.below(16);
            counts[[7, 11, 13, 14].iter().filter(|&&last| at > last).count()] += 1;
        }
        counts
    };
    let counts = drawn(&mut random);
    let mut right = ChiSquare::default();
    right.add(&weights, &counts);
    right.check("right", 5);
    for wrong in [[8.0, 4.0, 2.0, 1.0, 1.5], [9.0, 4.0, 2.0, 1.0, 1.0], [4.0, 8.0, 2.0, 1.0, 1.0]] {
        let mut test = ChiSquare::default();
        test.add(&wrong, &counts);
        assert!(std::panic::catch_unwind(|| test.check("wrong", 1)).is_err(), "{wrong:?} passes");
    }
}
