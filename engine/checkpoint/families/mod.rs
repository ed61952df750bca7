//! Families of models: one file each, which says how a family differs from the others. All share one forward pass; what it
//! computes, [`super::config::Config`] says, never the family.

mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod qwen3_moe;

use std::path::Path;

use crate::error::{Error, Result};

/// A family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// Llama 2 and 3, SmolLM2.
    Llama,
    /// Mistral: Llama with a sliding window, in most versions.
    Mistral,
    /// Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen: a bias on q, k and v.
    Qwen2,
    /// Qwen3: RMSNorm per head on q and k before RoPE.
    Qwen3,
    /// Qwen3-MoE: Qwen3 with mixtures of experts.
    Qwen3Moe,
}

/// What the files of a family say, and leave unsaid.
pub(super) struct Definition {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// `general.architecture` in GGUF.
    pub architecture: &'static str,
    /// The class in `transformers`, for `architectures` in `config.json`.
    pub class: &'static str,
    /// A bias on q, k and v.
    pub qkv_bias: bool,
    /// RMSNorm on each head of q and k before RoPE.
    pub head_norm: bool,
    /// Width of a head where `config.json` says none; `None`: the hidden size divided by the heads.
    pub head_dim: Option<usize>,
    /// The key `attention_bias` of `config.json` is honoured by `transformers`.
    pub honours_attention_bias: bool,
    /// Layers that have a sliding window where `config.json` does not list them.
    pub windows: Windows,
    /// The converter to GGUF reorders the rows of q and k, since llama.cpp rotates neighbouring values.
    pub is_reordered_in_gguf: bool,
    /// Layers may be mixtures of experts.
    pub has_experts: bool,
}

/// Layers with a sliding window.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Windows {
    /// None, whatever `config.json` says.
    None,
    /// All.
    All,
    /// Those from `max_window_layers` on, if `use_sliding_window` says so.
    Upper,
}

impl Family {
    /// All of them.
    const ALL: [Family; 5] = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3, Family::Qwen3Moe];

    pub(super) fn definition(self) -> &'static Definition {
        match self {
            Family::Llama => &llama::DEFINITION,
            Family::Mistral => &mistral::DEFINITION,
            Family::Qwen2 => &qwen2::DEFINITION,
            Family::Qwen3 => &qwen3::DEFINITION,
            Family::Qwen3Moe => &qwen3_moe::DEFINITION,
        }
    }

    /// The family that `model_type` of the `config.json` at `path` names.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFamily`], which lists the known ones.
    pub fn from_model_type(path: &Path, model_type: &str) -> Result<Family> {
        Family::named(path, model_type, |definition| definition.model_type)
    }

    /// The family that `general.architecture` of the GGUF file at `path` names.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFamily`], which lists the known ones.
    pub(super) fn from_architecture(path: &Path, architecture: &str) -> Result<Family> {
        Family::named(path, architecture, |definition| definition.architecture)
    }

    fn named(path: &Path, name: &str, name_of: fn(&Definition) -> &'static str) -> Result<Family> {
        let found = Family::ALL.into_iter().find(|family| name_of(family.definition()) == name);
        found.ok_or_else(|| Error::UnknownFamily {
            path: path.to_owned(),
            model_type: name.to_owned(),
            supported: Family::ALL.map(|family| name_of(family.definition())).join(", "),
        })
    }
}
