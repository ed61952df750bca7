//! Measurement of the costs of passes, one number of rows at a time, so that an answer can be written meanwhile.

use std::sync::Arc;

use super::pace::Costs;
use crate::error::Result;
use crate::model::{MEASURED_ROWS, ModelRunner, PassCost};

/// Costs of which some points are known.
#[derive(Default)]
pub struct CostMeasurement {
    /// Seconds of a pass by its rows, of the target and of the draft.
    target: Vec<(usize, f64)>,
    draft: Vec<(usize, f64)>,
}

impl CostMeasurement {
    /// Measures one more number of rows, and gives the costs once all are known. The caches of slot `slot` are overwritten
    /// from `position` on.
    ///
    /// # Errors
    ///
    /// Those of [`ModelRunner::run`].
    pub fn advance(
        &mut self,
        target: &ModelRunner,
        draft: Option<&ModelRunner>,
        slot: usize,
        position: usize,
    ) -> Result<Option<Costs>> {
        let rows = MEASURED_ROWS[self.target.len()];
        let measure = |model| PassCost::measure_point(model, slot, position, rows);
        let seconds = measure(target)?;
        if let Some(draft) = draft {
            // A model that drafts for itself has the target's costs.
            let is_target = Arc::ptr_eq(draft.model(), target.model());
            self.draft.push((rows, if is_target { seconds } else { measure(draft)? }));
        }
        self.target.push((rows, seconds));
        let costs = || Costs { target: PassCost::from_points(&self.target), draft: PassCost::from_points(&self.draft) };
        Ok((self.target.len() == MEASURED_ROWS.len()).then(costs))
    }
}
