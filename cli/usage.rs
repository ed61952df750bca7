//! Errors of usage, which end the command with exit code 2.

use pard::Error;
use pard::error::OptionName;

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
    error.is::<Usage>() || matches!(error.downcast_ref(), Some(Error::Option { .. }))
}

/// `line`, the message of `error`, with the flag in the place of the engine's name for an option.
pub fn with_flag(error: &anyhow::Error, line: &str) -> String {
    match error.downcast_ref() {
        Some(&Error::Option { option, .. }) => match flag(option) {
            Some(flag) => line.replacen(&format!("{option}: "), &format!("{flag}: "), 1),
            None => line.to_owned(),
        },
        _ => line.to_owned(),
    }
}

/// The flag that sets `option`, if there is one.
fn flag(option: OptionName) -> Option<&'static str> {
    Some(match option {
        OptionName::Acceptance => "--acceptance",
        OptionName::Backend => "--backend",
        OptionName::Banned => "--ban",
        OptionName::Context => "--context",
        OptionName::Draft => "--draft",
        OptionName::DraftDevice => "--draft-device",
        OptionName::Drafts => "--draft-len",
        OptionName::FrequencyPenalty => "--frequency-penalty",
        OptionName::Grammar => "--grammar",
        OptionName::LogitBias => "--logit-bias",
        OptionName::MaxTokens => "--max-tokens",
        OptionName::MinP => "--min-p",
        OptionName::Ngram => "--ngram",
        OptionName::PresencePenalty => "--presence-penalty",
        OptionName::Products => "--products",
        OptionName::Quantised => "--quantised-products",
        OptionName::RepetitionPenalty => "--repetition-penalty",
        OptionName::Sequences => "--parallel",
        OptionName::Shaders => "--shaders",
        OptionName::Temperature => "--temperature",
        OptionName::TopLogprobs => "--logprobs",
        OptionName::TopP => "--top-p",
        _ => return None,
    })
}
