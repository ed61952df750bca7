//! A model's hyper-parameters, whatever file they came from.
//! Parsing lives with the formats (`hugging_face`, `gguf`); the checks that hold for all of them live here.

use std::path::Path;

use crate::error::{Error, Result};

/// A family of architectures. They share one forward pass and differ in the terms named here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3, SmolLM2, Mistral.
    Llama,
    /// Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen: a bias on q, k and v.
    Qwen2,
    /// Qwen3: RMSNorm per head on q and k before RoPE.
    Qwen3,
}

impl Family {
    /// `model_type` in `config.json`, and `general.architecture` in GGUF, with the family each names.
    pub const KNOWN: [(&'static str, Family); 4] =
        [("llama", Family::Llama), ("mistral", Family::Llama), ("qwen2", Family::Qwen2), ("qwen3", Family::Qwen3)];

    /// The family that `model_type` names.
    ///
    /// **Errors**: [`Error::UnknownFamily`], which lists the known ones.
    pub fn from_model_type(path: &Path, model_type: &str) -> Result<Family> {
        Self::KNOWN.iter().find(|(name, _)| *name == model_type).map(|&(_, family)| family).ok_or_else(|| {
            Error::UnknownFamily {
                path: path.to_owned(),
                model_type: model_type.to_owned(),
                supported: Self::KNOWN.map(|(name, _)| name).join(", "),
            }
        })
    }
}

/// How rotary frequencies are stretched for contexts longer than the pre-training's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Plain RoPE.
    None,
    /// Every frequency divided by `factor` (position interpolation).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided by `factor`, high ones kept, a linear blend between.
    Llama3 {
        /// The divisor of the low frequencies.
        factor: f64,
        /// Wavelengths longer than `original_context / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths shorter than `original_context / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// The context of the pre-training, in tokens.
        original_context: f64,
    },
    /// Divisors per frequency, one for each of `head_dim / 2` (GGUF's `rope_freqs.weight` is read into this).
    Factors,
}

/// A model's hyper-parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The architecture.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; a multiple of 16 in 32..=256.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub feed_forward_size: usize,
    /// Rows of the embedding, padding included.
    pub vocab_size: usize,
    /// The epsilon of every RMSNorm.
    pub norm_epsilon: f64,
    /// The base of the rotary frequencies.
    pub rope_theta: f64,
    /// How those are stretched.
    pub rope_scaling: RopeScaling,
    /// Rotary divisors per frequency, `head_dim / 2` of them, when `rope_scaling` is [`RopeScaling::Factors`].
    pub rope_factors: Vec<f32>,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// Whether q, k and v have a bias.
    pub qkv_bias: bool,
    /// Whether each head of q and k is normalised before RoPE.
    pub head_norm: bool,
    /// The longest context the model was made for, in tokens.
    pub context: usize,
    /// The mask token of a PARD draft (`pard_token`).
    pub mask_token: Option<u32>,
    /// Whether embedding and head are those of the target it drafts for (`shared_embeddings`), but for the mask token's
    /// row of the embedding.
    pub shared_embeddings: bool,
}

impl Config {
    /// Width of all query heads together; unlike `hidden_size` in Qwen3.
    pub fn query_size(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together, and of all value heads.
    pub fn key_value_size(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Whether `id` is a mask token whose row lies apart from the embedding.
    pub fn mask_has_row(&self, id: u32) -> bool {
        self.shared_embeddings && self.mask_token == Some(id)
    }

    /// Checks what every later stage relies on.
    ///
    /// **Errors**: [`Error::Config`], which names the field and `path`.
    pub fn check(&self, path: &Path) -> Result<()> {
        let fault =
            |field: &str, reason: String| Err(Error::Config { path: path.to_owned(), field: field.to_owned(), reason });
        // Far beyond any model, and small enough that no product of two of them overflows.
        const LARGEST: usize = 1 << 24;
        for (field, value) in [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("intermediate_size", self.feed_forward_size),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.context),
        ] {
            if value == 0 || value > LARGEST {
                return fault(field, format!("{value} is not between 1 and {LARGEST}"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return fault(
                "num_key_value_heads",
                format!("{} heads cannot share {} key-value heads evenly", self.heads, self.kv_heads),
            );
        }
        if self.heads / self.kv_heads > 64 {
            return fault(
                "num_key_value_heads",
                format!("{} query heads on one key-value head; at most 64 are supported", self.heads / self.kv_heads),
            );
        }
        if !self.head_dim.is_multiple_of(16) || !(32..=256).contains(&self.head_dim) {
            return fault("head_dim", format!("{} is not a multiple of 16 between 32 and 256", self.head_dim));
        }
        for (field, value) in [("hidden_size", self.hidden_size), ("intermediate_size", self.feed_forward_size)] {
            if !value.is_multiple_of(8) {
                return fault(field, format!("{value} is not a multiple of 8, which 16-byte weight loads need"));
            }
        }
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon < 1.0) {
            return fault("rms_norm_eps", format!("{} is not between 0 and 1", self.norm_epsilon));
        }
        if !(self.rope_theta > 1.0 && self.rope_theta.is_finite()) {
            return fault("rope_theta", format!("{} is not a finite number above 1", self.rope_theta));
        }
        if self.rope_scaling == RopeScaling::Factors && self.rope_factors.len() != self.head_dim / 2 {
            return fault(
                "rope_freqs",
                format!("{} factors for {} frequencies", self.rope_factors.len(), self.head_dim / 2),
            );
        }
        if self.shared_embeddings {
            // The mask's row is its own, so that its id need not be one of the embedding's.
            return match self.mask_token {
                Some(_) => Ok(()),
                None => fault("pard_token", "is missing; a draft with shared_embeddings has one".to_owned()),
            };
        }
        if let Some(id) = self.mask_token
            && id as usize >= self.vocab_size
        {
            return fault("pard_token", format!("{id} is outside the vocabulary of {}", self.vocab_size));
        }
        Ok(())
    }
}
