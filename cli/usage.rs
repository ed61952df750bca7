//! Errors of usage, which end the command with exit code 2.

/// A flag or argument that cannot be as it was given.
#[derive(Debug)]
pub struct Usage {
    flag: &'static str,
    reason: String,
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.flag, self.reason)
    }
}

impl std::error::Error for Usage {}

/// The error that `flag` cannot be as it was given, for `reason`.
pub fn usage(flag: &'static str, reason: impl Into<String>) -> anyhow::Error {
    Usage { flag, reason: reason.into() }.into()
}

/// Returns `true` if the command line is at fault, or a value that it gave to the engine.
pub fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<Usage>() || matches!(error.downcast_ref(), Some(pard::Error::Option { .. }))
}
