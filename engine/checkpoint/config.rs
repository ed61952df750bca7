//! A model's hyper-parameters, whatever file they came from.
//! Parsing lives with the formats (`hugging_face`, `gguf`); the checks that hold for all of them live here.

use std::path::Path;

pub use super::families::Family;
use crate::error::{Error, Result};

/// Scaling of the rotary frequencies for contexts longer than the pre-training's.
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
    /// YaRN's: low frequencies divided by `factor`, high ones kept, a linear blend over the dimensions between; cosines
    /// and sines are multiplied by `attention_factor`.
    Yarn(Yarn),
    /// Divisors per frequency, one for each of `head_dim / 2` (GGUF's `rope_freqs.weight` is read into this).
    Factors,
}

/// YaRN, arXiv:2309.00071, as Hugging Face's `_compute_yarn_parameters` has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// The divisor of the low frequencies.
    pub factor: f64,
    /// The context of the pre-training, in tokens.
    pub original_context: f64,
    /// Frequencies that turn more often than this over the original context are kept.
    pub beta_fast: f64,
    /// Frequencies that turn less often than this over the original context are divided.
    pub beta_slow: f64,
    /// Factor of cosines and sines, so that a score is multiplied by its square.
    pub attention_factor: f64,
    /// `true` if the blend begins and ends at whole dimensions.
    pub truncate: bool,
}

impl Yarn {
    /// Hugging Face's defaults of all but the two that a file must name.
    pub fn new(factor: f64, original_context: f64) -> Yarn {
        Yarn {
            factor,
            original_context,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: Yarn::magnitude(factor, 1.0),
            truncate: true,
        }
    }

    /// `0.1 · mscale · ln(factor) + 1`, and 1 for a factor of at most 1: the square root of the paper's `1 / t`, where
    /// `mscale` is 1.
    pub fn magnitude(factor: f64, mscale: f64) -> f64 {
        if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
    }

    /// Fails with the key of `config.json` whose value is not valid, and the reason.
    pub(super) fn check(&self) -> std::result::Result<(), (&'static str, String)> {
        let Yarn { factor, original_context, beta_fast, beta_slow, attention_factor, .. } = *self;
        for (key, value) in [
            ("factor", factor),
            ("original_max_position_embeddings", original_context),
            ("beta_fast", beta_fast),
            ("beta_slow", beta_slow),
            ("attention_factor", attention_factor),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err((key, format!("{value} is not a positive number")));
            }
        }
        if beta_fast < beta_slow {
            return Err(("beta_fast", format!("{beta_fast} is below beta_slow, {beta_slow}")));
        }
        Ok(())
    }

    /// The context that the stretched frequencies are for, in tokens.
    pub fn context(&self) -> usize {
        (self.factor * self.original_context) as usize
    }
}

/// Sliding-window attention: its length and its layers, in which a token at position p sees the positions from
/// `p - tokens + 1` to p.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingWindow {
    /// Length of the window, the token itself included.
    pub tokens: usize,
    /// `true` for each layer with the window; the others see all positions before.
    pub layers: Vec<bool>,
}

/// The hidden states of its target that a draft reads beside tokens (the target-dependent mode of PARD-2,
/// arXiv:2605.08632). A row's embedding is `embed(token) + scale · (W · states + b)`, with the states of the token before.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetLayers {
    /// The states, in the order in which the projection reads them. In [`StateForm::Pard2`], n is the state after n layers
    /// (0 is the embedding), and -n counts from the end, where -1 is the output of the final norm.
    pub layers: Vec<i32>,
    /// The target's hidden size.
    pub hidden_size: usize,
    /// The factor on the projection.
    pub scale: f32,
    /// `true` if the projection has a bias.
    pub bias: bool,
    /// Meaning of the layers.
    pub form: StateForm,
}

/// Meaning of the layers that a draft reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateForm {
    /// PARD-2's: states as they are, and masks repeat what the last token reads.
    Pard2,
    /// That of drafts that this crate wrote before: n is the output of layer n over its root mean square, and masks read
    /// nothing.
    Normalised,
}

/// A hidden state of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HiddenState {
    /// The residual stream after so many layers.
    After(usize),
    /// The output of the final norm.
    Normed,
}

impl TargetLayers {
    /// The factor on the projection where a draft's files name none (`pard2_scale`).
    pub const SCALE: f32 = 0.02;

    /// The states `layers` of a target of this hidden size, in PARD-2's form, with the usual factor and no bias.
    pub fn new(layers: Vec<i32>, hidden_size: usize) -> TargetLayers {
        TargetLayers { layers, hidden_size, scale: TargetLayers::SCALE, bias: false, form: StateForm::Pard2 }
    }

    /// The number of values in a token's states.
    pub fn width(&self) -> usize {
        self.layers.len() * self.hidden_size
    }

    /// The states, of a target of `layers` layers.
    ///
    /// # Errors
    ///
    /// The first number that stands for no state of such a target.
    pub fn states(&self, layers: usize) -> std::result::Result<Vec<HiddenState>, i32> {
        let count = layers as i64;
        let state = |&number: &i32| match (self.form, i64::from(number)) {
            (StateForm::Normalised, layer) if (0..count).contains(&layer) => Ok(HiddenState::After(layer as usize + 1)),
            (StateForm::Pard2, number) => match if number < 0 { count + 1 + number } else { number } {
                last if last == count => Ok(HiddenState::Normed),
                after if (0..count).contains(&after) => Ok(HiddenState::After(after as usize)),
                _ => Err(number as i32),
            },
            _ => Err(number),
        };
        self.layers.iter().map(state).collect()
    }

    /// The key of `config.json` that names the layers.
    pub(crate) fn key(&self) -> &'static str {
        match self.form {
            StateForm::Pard2 => "pard2_target_layers",
            StateForm::Normalised => "target_layers",
        }
    }

    /// The key of `config.json` that names the width.
    pub(crate) fn width_key(&self) -> &'static str {
        match self.form {
            StateForm::Pard2 => "pard2_target_dim",
            StateForm::Normalised => "target_hidden_size",
        }
    }

    /// Fails with the key of `config.json` whose value is not valid, and the reason.
    fn check(&self) -> std::result::Result<(), (&'static str, String)> {
        const LARGEST: usize = Config::LARGEST;
        let TargetLayers { layers, hidden_size, scale, form, .. } = self;
        let ascends = layers.is_sorted_by(|one, other| one < other);
        if layers.is_empty() || (*form == StateForm::Normalised && !ascends) {
            return Err((self.key(), "there has to be a layer, and layers have to ascend".to_owned()));
        }
        if *hidden_size == 0 || *hidden_size > LARGEST || !hidden_size.is_multiple_of(8) {
            let reason = format!("{hidden_size} values of each state are not a multiple of 8 between 8 and {LARGEST}");
            return Err((self.width_key(), reason));
        }
        if layers.len() > LARGEST / hidden_size {
            return Err((self.key(), format!("{} layers are too many", layers.len())));
        }
        if !scale.is_finite() {
            return Err(("pard2_scale", format!("{scale} is not a finite number")));
        }
        Ok(())
    }
}

/// Feed-forward layers that are mixtures of experts: each row takes those few that its router scores highest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: usize,
    /// Experts that a row takes.
    pub used: usize,
    /// Width of one expert.
    pub feed_forward_size: usize,
    /// `true` if the shares of a row's experts add up to 1, `false` if those of all experts do.
    pub normalised: bool,
    /// `true` for each layer that is such a mixture.
    pub layers: Vec<bool>,
}

impl Experts {
    /// The most experts of a layer that kernels are made for.
    const MOST: usize = 512;

    /// Fails with the key of `config.json` whose value is not valid, and the reason.
    fn check(&self, layers: usize) -> std::result::Result<(), (&'static str, String)> {
        let Experts { count, used, feed_forward_size, .. } = *self;
        if count == 0 || count > Experts::MOST {
            return Err(("num_experts", format!("{count} is not between 1 and {}", Experts::MOST)));
        }
        if used == 0 || used > count {
            return Err(("num_experts_per_tok", format!("{used} of {count} experts")));
        }
        if feed_forward_size == 0 || feed_forward_size > Config::LARGEST || !feed_forward_size.is_multiple_of(8) {
            let reason = format!("{feed_forward_size} is not a multiple of 8 between 8 and {}", Config::LARGEST);
            return Err(("moe_intermediate_size", reason));
        }
        if self.layers.len() != layers || !self.layers.contains(&true) {
            return Err(("mlp_only_layers", format!("{} entries for {layers} layers", self.layers.len())));
        }
        Ok(())
    }
}

/// A model's hyper-parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The family, which files are written by. What is computed, the fields below say.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Sequence layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; a multiple of 16 in 32..=256.
    pub head_dim: usize,
    /// Width of the feed-forward layer, where it is no mixture of experts.
    pub feed_forward_size: usize,
    /// Mixtures of experts, if any layer is one.
    pub experts: Option<Experts>,
    /// Rows of the embedding, padding included.
    pub vocab_size: usize,
    /// The epsilon of every RMSNorm.
    pub norm_epsilon: f64,
    /// The base of the rotary frequencies.
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Rotary divisors per frequency, `head_dim / 2` of them, when `rope_scaling` is [`RopeScaling::Factors`].
    pub rope_factors: Vec<f32>,
    /// The attention window, if any layer has one.
    pub sliding_window: Option<SlidingWindow>,
    /// `true` if the head is the embedding.
    pub tied_head: bool,
    /// `true` if q, k and v have a bias.
    pub qkv_bias: bool,
    /// `true` if each head of q and k is normalised before RoPE.
    pub head_norm: bool,
    /// The longest context the model was made for, in tokens.
    pub context: usize,
    /// The mask token of a PARD draft (`pard_token`).
    pub mask_token: Option<u32>,
    /// `true` if embedding and head are those of the draft's target (`shared_embeddings`), except the mask token's row
    /// of the embedding.
    pub shared_embeddings: bool,
    /// The hidden states of its target that a draft reads, if it does.
    pub target_layers: Option<TargetLayers>,
}

impl Config {
    /// The largest size of any kind: far beyond any model, and small enough that no product of two of them overflows.
    pub(super) const LARGEST: usize = 1 << 24;

    /// Width of all query heads together; unlike `hidden_size` in Qwen3.
    pub fn query_size(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together, and of all value heads.
    pub fn key_value_size(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The number of tokens that layer `layer` sees, the row's own included; `None` if it sees all before.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let window = self.sliding_window.as_ref()?;
        window.layers.get(layer).copied().unwrap_or(false).then_some(window.tokens)
    }

    /// The experts of layer `layer`; `None` if it has one feed-forward layer for all rows.
    pub fn experts_of(&self, layer: usize) -> Option<&Experts> {
        let experts = self.experts.as_ref()?;
        experts.layers.get(layer).copied().unwrap_or(false).then_some(experts)
    }

    /// Returns `true` if some layer has one feed-forward layer for all rows.
    pub(crate) fn has_dense_layers(&self) -> bool {
        self.experts.as_ref().is_none_or(|experts| experts.layers.contains(&false))
    }

    /// The same model of some of its layers, in the order of `layers`.
    pub fn of_layers(&self, layers: &[usize]) -> Config {
        let chosen = |window: &SlidingWindow| SlidingWindow {
            tokens: window.tokens,
            layers: layers.iter().map(|&layer| self.window(layer).is_some()).collect(),
        };
        let sliding_window = self.sliding_window.as_ref().map(chosen).filter(|window| window.layers.contains(&true));
        let some = |experts: &Experts| Experts {
            layers: layers.iter().map(|&layer| self.experts_of(layer).is_some()).collect(),
            ..experts.clone()
        };
        let experts = self.experts.as_ref().map(some).filter(|experts| experts.layers.contains(&true));
        Config { layers: layers.len(), sliding_window, experts, ..self.clone() }
    }

    /// Returns `true` if `id` is a mask token with a row apart from the embedding.
    pub fn mask_has_row(&self, id: u32) -> bool {
        self.shared_embeddings && self.mask_token == Some(id)
    }

    /// Checks what every later stage relies on.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], which names the field and `path`.
    pub fn check(&self, path: &Path) -> Result<()> {
        let fault =
            |field: &str, reason: String| Err(Error::Config { path: path.to_owned(), field: field.to_owned(), reason });
        const LARGEST: usize = Config::LARGEST;
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
        if let Some(window) = &self.sliding_window {
            if window.tokens == 0 || window.tokens > LARGEST {
                return fault("sliding_window", format!("{} is not between 1 and {LARGEST}", window.tokens));
            }
            if window.layers.len() != self.layers {
                let reason = format!("{} entries for {} layers", window.layers.len(), self.layers);
                return fault("layer_types", reason);
            }
        }
        if let Some(Err((field, reason))) = self.experts.as_ref().map(|experts| experts.check(self.layers)) {
            return fault(field, reason);
        }
        if let Some(Err((field, reason))) = self.target_layers.as_ref().map(TargetLayers::check) {
            return fault(field, reason);
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
