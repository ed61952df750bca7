//! Points of a pass at which hidden states are stored and loaded.

use crate::gpu::Pass;
use crate::ops::{LoadHidden, StoreHidden};

/// Use of one sequence's hidden states by the passes of a model.
pub enum Hook {
    /// A target's passes store the output of these layers for each row.
    Store(Vec<(usize, StoreHidden)>),
    /// A draft's passes read the stored states.
    Load(LoadHidden),
}

impl Hook {
    /// Records, before the first layer, the loading of states for `rows` rows.
    pub(super) fn load(&self, pass: &mut Pass, rows: usize) {
        if let Hook::Load(load) = self {
            load.encode(pass, rows);
        }
    }

    /// Records the storing of `rows` rows' states behind layer `layer`.
    pub(super) fn store(&self, layer: usize, pass: &mut Pass, rows: usize) {
        if let Hook::Store(layers) = self {
            layers.iter().filter(|(of, _)| *of == layer).for_each(|(_, store)| store.encode(pass, rows));
        }
    }
}
