//! Published drafts: a table of which models each serves, and of what its authors measured.

use std::path::PathBuf;

use super::config::{Config, Family};
use super::options::SourceOptions;
use super::resolve;
use crate::text::Tokenizer;

/// A draft that somebody published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublishedDraft {
    /// Its repository on the Hugging Face hub, or its folder in this project's repository.
    pub name: &'static str,
    /// Set if it reads its target's hidden states (PARD-2).
    pub reads_states: bool,
    /// Its weights, in millions.
    pub millions: u32,
    /// What was measured of it, if that was published.
    pub measured: Option<Measured>,
    family: Family,
    /// A token that its targets' tokenizers have, and those of other models of the family have not.
    token: &'static str,
    /// The hidden size and the number of layers of its target, if it is for one model.
    target: Option<[usize; 2]>,
}

/// Tokens per round, as the authors of a draft measured them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Tokens per round, the target's own included.
    pub tokens_per_round: f64,
    /// Tokens that were proposed per round, K.
    pub drafts: usize,
    /// The prompts.
    pub prompts: &'static str,
}

impl Measured {
    /// The tokens per round that `drafts` proposals should give, if each is accepted with the same chance.
    pub fn expected(&self, drafts: usize) -> f64 {
        let tokens = |chance: f64, drafts: usize| (0..=drafts).map(|index| chance.powi(index as i32)).sum::<f64>();
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..50 {
            let middle = 0.5 * (low + high);
            if tokens(middle, self.drafts) < self.tokens_per_round { low = middle } else { high = middle }
        }
        tokens(low, drafts)
    }
}

/// Fields that most rows of the table have in common.
const PARD: PublishedDraft = PublishedDraft {
    name: "",
    reads_states: false,
    millions: 0,
    measured: None,
    family: Family::Llama,
    token: "",
    target: None,
};

const QWEN: &str = "<|im_start|>";
const LLAMA_3: &str = "<|begin_of_text|>";

/// The table, the best draft of a model first.
pub const PUBLISHED: [PublishedDraft; 9] = [
    PublishedDraft {
        name: "amd/PARD2-Qwen3-8B",
        reads_states: true,
        millions: 613,
        measured: Some(Measured { tokens_per_round: 7.62, drafts: 15, prompts: "GSM8K" }),
        family: Family::Qwen3,
        token: QWEN,
        target: Some([4096, 36]),
    },
    PublishedDraft {
        name: "amd/PARD2-Qwen3-14B",
        reads_states: true,
        millions: 617,
        family: Family::Qwen3,
        token: QWEN,
        target: Some([5120, 40]),
        ..PARD
    },
    PublishedDraft {
        name: "amd/PARD2-Llama-3.1-8B",
        reads_states: true,
        millions: 1269,
        family: Family::Llama,
        token: LLAMA_3,
        target: Some([4096, 32]),
        ..PARD
    },
    PublishedDraft { name: "amd/PARD-Qwen3-0.6B", millions: 596, family: Family::Qwen3, token: QWEN, ..PARD },
    PublishedDraft { name: "amd/PARD-Qwen2.5-0.5B", millions: 494, family: Family::Qwen2, token: QWEN, ..PARD },
    PublishedDraft {
        name: "amd/PARD-DeepSeek-R1-Distill-Qwen-1.5B",
        millions: 1777,
        family: Family::Qwen2,
        token: "<｜Assistant｜>",
        ..PARD
    },
    PublishedDraft { name: "amd/PARD-Llama-3.2-1B", millions: 1236, family: Family::Llama, token: LLAMA_3, ..PARD },
    // For Llama 4, which this engine does not run; it serves Llama models that have Llama 4's tokenizer.
    PublishedDraft {
        name: "amd/PARD-Llama-4-1B",
        millions: 1387,
        family: Family::Llama,
        token: "<|header_start|>",
        ..PARD
    },
    PublishedDraft {
        name: "models/smollm2-135m-instruct-pard",
        reads_states: true,
        millions: 7,
        measured: Some(Measured { tokens_per_round: 1.7, drafts: 8, prompts: "HumanEval, GSM8K, MT-Bench" }),
        family: Family::Llama,
        token: QWEN,
        target: Some([576, 30]),
    },
];

impl PublishedDraft {
    /// The drafts for a model of `config` whose tokenizer is `tokenizer`, the best first.
    pub fn serving(config: &Config, tokenizer: &Tokenizer) -> impl Iterator<Item = &'static PublishedDraft> {
        let family = match config.family {
            // One tokenizer.
            Family::Qwen3Moe => Family::Qwen3,
            family => family,
        };
        let target = [config.hidden_size, config.layers];
        PUBLISHED.iter().filter(move |draft| {
            draft.family == family
                && draft.target.is_none_or(|only| only == target)
                && tokenizer.id(draft.token).is_some()
        })
    }

    /// The draft whose repository or folder is called `name`.
    pub fn named(name: &str) -> Option<&'static PublishedDraft> {
        let folder = |path: &str| path.rsplit(['/', '\\']).next().map(str::to_owned);
        PUBLISHED.iter().find(|draft| draft.name == name || (folder(draft.name) == folder(name) && !name.contains('/')))
    }

    /// Its folder, if all of it is on this machine.
    pub fn local(&self, options: &SourceOptions) -> Option<PathBuf> {
        resolve::resolve(self.name, &SourceOptions { offline: true, progress: None, ..options.clone() }).ok()
    }
}
