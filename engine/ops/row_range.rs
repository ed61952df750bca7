//! Rows of a pass that a product is of.

/// Field of the step that counts the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowRange {
    /// `step.rows`.
    All,
    /// `step.outputs`: the rows whose next token is wanted.
    Outputs,
}

impl RowRange {
    pub(super) fn constant(self) -> (&'static str, u32) {
        ("OUTPUT_ROWS", u32::from(self == RowRange::Outputs))
    }
}
