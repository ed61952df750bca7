//! Parts that the engine is made of, for tools that measure, tune, profile and train, and for kernels of your own.
//!
//! **Stability**: none. These interfaces change with the kernels, in any release, while the rest of the crate keeps what
//! semantic versioning promises. An application that only runs models needs nothing from here.

/// Everything that names wgpu: adapters, the device, buffers, kernels and passes.
pub mod gpu {
    pub use crate::gpu::*;
}

/// Kernels, each with the checks of its operands and its dispatch.
pub mod ops {
    pub use crate::ops::*;
}

/// Forward passes: a model with the buffers and bindings that it runs with.
pub mod forward {
    pub use crate::model::pass_hook::{Batching, NoHook, PassHook};
    pub use crate::model::runner::ModelRunner;
    pub use crate::model::sampler::{Sampler, SamplerBuffers, Stages, log_probabilities};
    pub use crate::model::submit_pace::SubmitPace;
    pub use crate::model::target_states::{Features, Hook, Pair, TargetStates, read_states};
    pub use crate::model::tensor_map::expected_matrices;
    pub use crate::model::weights::attention_shape;

    /// Rotary angles by position.
    pub mod rope_table {
        pub use crate::model::rope_table::*;
    }

    /// Files of a draft that uses its target's embeddings.
    pub mod tied_draft {
        pub use crate::model::tied_draft::*;
    }
}

/// State of answers that keep to a grammar.
pub mod grammar {
    pub use crate::text::constraint::{Constraint, Walk};

    use crate::error::Result;
    use crate::text::{ChatTokenizer, Grammar, Thinking};

    /// The beginning of an answer that keeps to `grammar`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Grammar`].
    pub fn begin(text: &ChatTokenizer, grammar: &Grammar) -> Result<Constraint> {
        text.constraint(grammar, Thinking::None)
    }
}

/// State of sequences on the device.
pub mod inspect {
    pub use crate::decoding::inspect::Inspect;
}

/// Performance of an adapter at the shapes of known models.
pub mod measure {
    pub use crate::measure::*;
}

/// Training of drafts.
pub mod training {
    pub use crate::training::*;
}
