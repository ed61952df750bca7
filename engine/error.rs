//! Why something could not be loaded or run. Every message names the thing at fault and, where there is one, the way out.

use std::path::PathBuf;

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter of this machine fits the request.
    #[error("no GPU adapter {wanted}; this machine has: {found}")]
    Adapter {
        /// Description of the adapter that was requested.
        wanted: String,
        /// The adapters there are, or a hint on how to install one.
        found: String,
    },
    /// The adapter was found but would not open.
    #[error("cannot open the adapter {adapter}: {reason}")]
    Device {
        /// The adapter's name.
        adapter: String,
        /// The driver's words.
        reason: String,
    },
    /// The device stopped answering; every buffer on it is gone.
    #[error("the GPU {adapter} was lost: {reason}; load the model again")]
    DeviceLost {
        /// The adapter's name.
        adapter: String,
        /// The driver's words.
        reason: String,
    },
    /// The device has no room for a buffer.
    #[error("the GPU {adapter} has no room for {what}; use a smaller model or a shorter context")]
    OutOfMemory {
        /// The adapter's name.
        adapter: String,
        /// Allocation that failed, or the work at hand.
        what: String,
    },
    /// Models and caches need more than there is, which is known before anything is uploaded.
    #[error(
        "{} of device memory are needed ({} of weights, {} of caches, {} of scratch) and the GPU {adapter} has {}; use \
         {hint}",
        megabytes(.needed), megabytes(.weights), megabytes(.caches), megabytes(.scratch), megabytes(.available)
    )]
    DoesNotFit {
        /// The adapter's name.
        adapter: String,
        /// Bytes of it all.
        needed: u64,
        /// Bytes of weights.
        weights: u64,
        /// Bytes of keys and values.
        caches: u64,
        /// Bytes of scratch memory for passes.
        scratch: u64,
        /// Bytes there are.
        available: u64,
        /// The ways out.
        hint: &'static str,
    },
    /// Something is larger than the adapter allows.
    #[error("{what} needs {needed} {unit}, and the GPU {adapter} allows {limit}; {hint}")]
    Limit {
        /// The adapter's name.
        adapter: String,
        /// Object that is too large.
        what: String,
        /// Amount that it needs.
        needed: u64,
        /// Amount that the adapter allows.
        limit: u64,
        /// Unit of the amounts.
        unit: &'static str,
        /// The way out.
        hint: &'static str,
    },
    /// wgpu refused a command: a fault of this crate, or of a shader edited by the user.
    #[error("{what}: {reason}")]
    Gpu {
        /// The kernel or operation.
        what: String,
        /// wgpu's words.
        reason: String,
    },
    /// A kernel does not compile on this adapter: a fault of its driver, or of a shader edited by the user.
    #[error(
        "the GPU {adapter} cannot compile the kernel {kernel}: {reason}; if the shader is not your own, update the driver"
    )]
    Compile {
        /// The adapter's name.
        adapter: String,
        /// The kernel, its files and its constants.
        kernel: String,
        /// The compiler's words.
        reason: String,
    },
    /// An operation was given a tensor that does not fit.
    #[error("{op}: {tensor} is {got:?}, expected {expected:?}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The operand.
        tensor: &'static str,
        /// Its shape.
        got: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A draft that shares its target's embeddings was to run without it.
    #[error("{path}: this is a draft without embeddings of its own; it needs its target's")]
    NoEmbeddings {
        /// The draft.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A model was named that is nowhere to be found.
    #[error("no model {}: {reason}", quoted(name))]
    NoModel {
        /// The name as given.
        name: String,
        /// Places that were searched, and a way out.
        reason: String,
    },
    /// A file is damaged, cut off, or lies about its own contents.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Description of the fault and its location.
        reason: String,
    },
    /// The hyper-parameters are missing, inconsistent or out of range.
    #[error("{path}: {field}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The key at fault.
        field: String,
        /// Description of the fault.
        reason: String,
    },
    /// The architecture is not one this crate runs.
    #[error("{path}: model type {model_type:?} is not supported; supported: {supported}")]
    UnknownFamily {
        /// The file.
        path: PathBuf,
        /// The type it names.
        model_type: String,
        /// The types there are.
        supported: String,
    },
    /// A tensor the model needs is not in the file.
    #[error("{path}: no tensor {name:?}")]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor's shape contradicts the hyper-parameters.
    #[error("{path}: tensor {name:?} is {got:?}, the configuration says {expected:?}")]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A tensor's element type is not one this crate reads.
    #[error("{path}: tensor {name:?} has element type {got}; supported: {supported}")]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        got: String,
        /// The types there are.
        supported: String,
    },
    /// A grammar is faulty, not supported, or cannot be followed.
    #[error("{kind}: {reason}")]
    Grammar {
        /// Its kind.
        kind: &'static str,
        /// Description of the fault, and the part of the grammar that has it.
        reason: String,
    },
    /// The tokenizer could not be built or used.
    #[error("{path}: tokenizer: {reason}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        reason: String,
    },
    /// The chat template is missing or fails.
    #[error("chat template: {reason}")]
    Template {
        /// Description of the fault, and a way out.
        reason: String,
    },
    /// A download failed.
    #[error("cannot download {repo}: {reason}")]
    Hub {
        /// The repository.
        repo: String,
        /// Description of the failure, and a way out.
        reason: String,
    },
    /// Draft and target speak different token languages.
    #[error(
        "the draft's tokenizer is not the target's: token {id} is {draft:?} in the draft and {target:?} in the target"
    )]
    TokenizerMismatch {
        /// The first id they disagree on.
        id: u32,
        /// The draft's token.
        draft: String,
        /// The target's token.
        target: String,
    },
    /// A parallel draft was asked of a model that names no mask token.
    #[error(
        "the draft {draft} names no mask token (`pard_token` in its config.json); name one, or let it propose one token a pass (VSD)"
    )]
    NoMaskToken {
        /// The draft.
        draft: String,
    },
    /// A token id lies outside the vocabulary.
    #[error("{what} {id} is outside the vocabulary of {vocab} tokens")]
    TokenRange {
        /// Kind of the token.
        what: &'static str,
        /// The id.
        id: u32,
        /// The vocabulary's size.
        vocab: usize,
    },
    /// The prompt holds no token.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {tokens} tokens and the context holds {context}; shorten it or use a longer context")]
    ContextFull {
        /// The prompt's length.
        tokens: usize,
        /// The context's length.
        context: usize,
    },
    /// The system gives no thread.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// The system's words.
        source: std::io::Error,
    },
    /// An option is out of range, or asks for something that is not supported here.
    #[error("{option}: {reason}")]
    Option {
        /// The option.
        option: OptionName,
        /// Description of the fault.
        reason: String,
    },
    /// There is nothing to learn from.
    #[error("there is nothing to learn from: {reason}")]
    NoSamples {
        /// Why not.
        reason: String,
    },
    /// Training left the numbers.
    #[error("the gradients of step {step} are not finite; the last checkpoint is intact; try a lower learning rate")]
    Diverged {
        /// The step, from 1.
        step: u64,
    },
    /// A training state belongs to a run with other settings.
    #[error(
        "{path} belongs to another run ({theirs}; this one: {ours}); repeat its options, or start in another folder"
    )]
    OtherRun {
        /// The state's file.
        path: PathBuf,
        /// Description of that run.
        theirs: String,
        /// Description of this run.
        ours: String,
    },
    /// Saved caches of another model, plan or adapter.
    #[error(
        "{path}: these caches are of another {what}, or were made on another adapter; the prompt has to be read again"
    )]
    OtherCaches {
        /// The file.
        path: PathBuf,
        /// The part that is another: `target`, `draft`, `release`.
        what: &'static str,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// Declares [`OptionName`] with the names of its variants.
macro_rules! options {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Name of an option, as [`Error::Option`] gives it: that of the field or argument.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum OptionName {
            $($(#[$doc])+ $variant,)+
        }

        impl OptionName {
            /// Name of the field or argument.
            pub fn name(self) -> &'static str {
                match self {
                    $(OptionName::$variant => $name,)+
                }
            }
        }
    };
}

options! {
    /// Acceptance rule of [`crate::SequenceOptions`].
    Acceptance = "acceptance",
    /// Backend of [`crate::AdapterQuery`].
    Backend = "backend",
    /// Environment variable that names the backend where [`crate::AdapterQuery`] names none.
    BackendVariable = "WGPU_BACKEND",
    /// Banned tokens of [`crate::SamplingParams`].
    Banned = "banned",
    /// Length of the context.
    Context = "context",
    /// Draft model.
    Draft = "draft",
    /// Device that the draft is on.
    DraftDevice = "draft_device",
    /// Draft length of [`crate::SequenceOptions`].
    Drafts = "drafts",
    /// Format of the weights in [`crate::LoadOptions`].
    Dtype = "dtype",
    /// Frequency penalty of [`crate::SamplingParams`].
    FrequencyPenalty = "frequency_penalty",
    /// Grammar of [`crate::SamplingParams`].
    Grammar = "grammar",
    /// Biases of [`crate::SamplingParams`].
    LogitBias = "logit_bias",
    /// Most tokens of an answer.
    MaxTokens = "max_tokens",
    /// Min-p of [`crate::SamplingParams`].
    MinP = "min_p",
    /// Lengths of n-grams in [`crate::SequenceOptions`].
    Ngram = "ngram",
    /// Tokens of the longest sample in training.
    Positions = "positions",
    /// Presence penalty of [`crate::SamplingParams`].
    PresencePenalty = "presence_penalty",
    /// Kernels for matrix products in [`crate::LoadOptions`].
    Products = "products",
    /// A profile of the device.
    Profile = "profile",
    /// Kernels for quantised matrices in [`crate::LoadOptions`].
    Quantised = "quantised",
    /// Repetition penalty of [`crate::SamplingParams`].
    RepetitionPenalty = "repetition_penalty",
    /// Rows of a pass.
    Rows = "rows",
    /// Sequences of an engine.
    Sequences = "sequences",
    /// Edited shaders.
    Shaders = "shaders",
    /// Teacher of a draft.
    Teacher = "teacher",
    /// Temperature of [`crate::SamplingParams`].
    Temperature = "temperature",
    /// A model with a tokenizer.
    Text = "text",
    /// Log-probabilities of [`crate::SamplingParams`].
    TopLogprobs = "top_logprobs",
    /// Top-p of [`crate::SamplingParams`].
    TopP = "top_p",
    /// Measurements of a model's kernels.
    Tuning = "tuning",
}

impl std::fmt::Display for OptionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// `name` in quotes and without control characters; the backslashes of a path on Windows stay as they are.
fn quoted(name: &str) -> String {
    format!("{name:?}").replace(r"\\", r"\")
}

pub(crate) fn megabytes(bytes: &u64) -> String {
    format!("{:.1} MB", *bytes as f64 / 1e6)
}
