//! Advice on the engine's errors, in the words of the command line. The engine itself knows no flags and no commands.

use pard::Error;
use pard::checkpoint::hugging_face::TARGET_PROJECTION;
use pard::checkpoint::resolve::DEFAULT_MODEL;
use pard::error::OptionName;

use crate::load;

/// Ways to the default model: for whoever installed a release, and for whoever has the sources.
pub const FETCH_DEFAULT_MODEL: &str = "`pard pull HuggingFaceTB/SmolLM2-135M-Instruct` fetches the same model from the hub, \
                                       under a name that -m takes; with pard's sources, `./run model` fetches this file";

/// Returns the flag or command that helps with `error`, if there is one.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let hint = match error.downcast_ref::<Error>()? {
        Error::DeviceLost { .. } => {
            "if it is lost once more, `pard fit` says what it has room for, and `pard tune` finds kernels that compile"
        }
        Error::OutOfMemory { .. } | Error::DoesNotFit { .. } => "`pard fit` says what fits",
        Error::Compile { .. } => "`pard tune` looks for kernels that compile",
        Error::NoEmbeddings { .. } => "give it with -d beside its target",
        Error::MissingTensor { name, .. } if name == TARGET_PROJECTION => {
            "it lies in the draft's warp_model.bin; --target-states off drafts without it"
        }
        Error::NoMaskToken { .. } => "--mask-token names one, --method vsd needs none",
        Error::ContextFull { .. } => "-c sets the context",
        Error::Template { .. } => "--raw continues plain text",
        Error::Diverged { .. } => "--lr sets the learning rate",
        Error::Option { option: OptionName::Rows, .. } => "--seq-len cuts samples, --pass-rows sets the rows of a pass",
        Error::Option { option: OptionName::Positions, .. } => "--seq-len cuts samples",
        Error::Option { option: OptionName::Dtype, .. } => "--weights bf16 loads it so",
        Error::Option { option: OptionName::Products, .. } => "--products plain uses ordinary instructions",
        Error::Option { option: OptionName::Acceptance, .. } => "--acceptance noise goes with every draft",
        Error::OtherRun { .. } => "--out names the folder",
        Error::NoModel { name, .. } if name == load::AUTO => "`pard pull` fetches one, and -d names any model",
        Error::NoModel { name, .. } if name == DEFAULT_MODEL => FETCH_DEFAULT_MODEL,
        _ => return None,
    };
    Some(hint)
}
