//! The second implementation to agree with: candle on the CPU, in f32, on the same BF16 values widened.
//! candle's models return the logits of the last token fed only, so a sequence is fed in pieces that end at the wanted
//! positions. Peculiarities met here: llama's head width is always hidden / heads, and it knows llama3 scaling only;
//! qwen2 and qwen3 have no scaling, and their configurations want fields that newer files leave out; llama drops keys
//! once there are more *heads* than `max_position_embeddings`, so that must not be set small; windows count one key more
//! than Hugging Face's, and hold within a pass only.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::{llama, mistral, qwen2, qwen3, qwen3_moe};
use serde_json::Value;

/// Longest sequence the rotary tables are made for.
const CONTEXT: usize = 4096;

/// A model on candle.
pub enum CandleModel {
    /// Llama 2 and 3, SmolLM2.
    Llama(Box<llama::Llama>, Box<llama::Config>),
    /// Mistral.
    Mistral(Box<mistral::Model>),
    /// Qwen2, Qwen2.5.
    Qwen2(Box<qwen2::ModelForCausalLM>),
    /// Qwen3.
    Qwen3(Box<qwen3::ModelForCausalLM>),
    /// Qwen3-MoE.
    Qwen3Moe(Box<qwen3_moe::ModelForCausalLM>),
}

impl CandleModel {
    /// Reads a Hugging Face folder.
    pub fn load(folder: &Path) -> Self {
        let read = |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let json: Value = serde_json::from_slice(&read(&folder.join("config.json"))).expect("config.json");
        Self::of(&json, read_tensors(folder))
    }

    /// The model that `json`, a `config.json`, describes, of `tensors`.
    pub fn of(json: &Value, tensors: HashMap<String, Tensor>) -> Self {
        let weights = || VarBuilder::from_tensors(tensors.clone(), DType::F32, &Device::Cpu);
        let number = |key: &str| {
            json[key].as_u64().unwrap_or_else(|| panic!("config.json: {key}: {:?} is no count", json[key])) as usize
        };
        let real = |key: &str| json[key].as_f64().unwrap_or_else(|| panic!("config.json: no number {key}"));
        let flag = |key: &str| json[key].as_bool().unwrap_or(false);
        match json["model_type"].as_str() {
            Some("llama") => {
                let parsed: llama::LlamaConfig = serde_json::from_value(json.clone()).expect("a Llama configuration");
                let config = llama::Config { max_position_embeddings: CONTEXT, ..parsed.into_config(false) };
                let head_dim = config.hidden_size / config.num_attention_heads;
                assert!(json["head_dim"].is_null() || number("head_dim") == head_dim, "head_dim is not hidden / heads");
                assert!(!flag("attention_bias"), "candle's llama has no bias");
                let model = llama::Llama::load(weights(), &config).expect("loading Llama");
                Self::Llama(Box::new(model), Box::new(config))
            }
            Some("mistral") => {
                assert!(json["rope_scaling"].is_null());
                let config = mistral::Config {
                    vocab_size: number("vocab_size"),
                    hidden_size: number("hidden_size"),
                    intermediate_size: number("intermediate_size"),
                    num_hidden_layers: number("num_hidden_layers"),
                    num_attention_heads: number("num_attention_heads"),
                    head_dim: Some(number("head_dim")),
                    num_key_value_heads: number("num_key_value_heads"),
                    hidden_act: Activation::Silu,
                    max_position_embeddings: CONTEXT,
                    rms_norm_eps: real("rms_norm_eps"),
                    rope_theta: real("rope_theta"),
                    sliding_window: Some(number("sliding_window") - 1),
                    use_flash_attn: false,
                };
                Self::Mistral(Box::new(mistral::Model::new(&config, weights()).expect("loading Mistral")))
            }
            Some("qwen2") => {
                assert!(json["rope_scaling"].is_null());
                let is_windowed = flag("use_sliding_window");
                assert!(!is_windowed || number("max_window_layers") == 0, "candle's qwen2 has one mask for all layers");
                let config = qwen2::Config {
                    vocab_size: number("vocab_size"),
                    hidden_size: number("hidden_size"),
                    intermediate_size: number("intermediate_size"),
                    num_hidden_layers: number("num_hidden_layers"),
                    num_attention_heads: number("num_attention_heads"),
                    num_key_value_heads: number("num_key_value_heads"),
                    max_position_embeddings: CONTEXT,
                    // Its mask applies the window whether it is in use or not.
                    sliding_window: if is_windowed { number("sliding_window") - 1 } else { CONTEXT },
                    max_window_layers: number("num_hidden_layers"),
                    tie_word_embeddings: flag("tie_word_embeddings"),
                    rope_theta: real("rope_theta"),
                    rms_norm_eps: real("rms_norm_eps"),
                    use_sliding_window: is_windowed,
                    hidden_act: Activation::Silu,
                };
                Self::Qwen2(Box::new(qwen2::ModelForCausalLM::new(&config, weights()).expect("loading Qwen2")))
            }
            Some("qwen3") => {
                assert!(json["rope_scaling"].is_null() && !flag("use_sliding_window"));
                let config = qwen3::Config {
                    vocab_size: number("vocab_size"),
                    hidden_size: number("hidden_size"),
                    intermediate_size: number("intermediate_size"),
                    num_hidden_layers: number("num_hidden_layers"),
                    num_attention_heads: number("num_attention_heads"),
                    head_dim: number("head_dim"),
                    attention_bias: flag("attention_bias"),
                    num_key_value_heads: number("num_key_value_heads"),
                    max_position_embeddings: CONTEXT,
                    sliding_window: None,
                    max_window_layers: number("num_hidden_layers"),
                    tie_word_embeddings: flag("tie_word_embeddings"),
                    rope_theta: real("rope_theta"),
                    rms_norm_eps: real("rms_norm_eps"),
                    use_sliding_window: false,
                    hidden_act: Activation::Silu,
                };
                Self::Qwen3(Box::new(qwen3::ModelForCausalLM::new(&config, weights()).expect("loading Qwen3")))
            }
            Some("qwen3_moe") => {
                assert!(json["rope_scaling"].is_null() && json["mlp_only_layers"].is_null());
                let config = qwen3_moe::Config {
                    vocab_size: number("vocab_size"),
                    hidden_size: number("hidden_size"),
                    intermediate_size: number("intermediate_size"),
                    num_hidden_layers: number("num_hidden_layers"),
                    num_attention_heads: number("num_attention_heads"),
                    head_dim: number("head_dim"),
                    attention_bias: flag("attention_bias"),
                    num_key_value_heads: number("num_key_value_heads"),
                    max_position_embeddings: CONTEXT,
                    sliding_window: None,
                    max_window_layers: number("num_hidden_layers"),
                    tie_word_embeddings: flag("tie_word_embeddings"),
                    rope_theta: real("rope_theta"),
                    rms_norm_eps: real("rms_norm_eps"),
                    use_sliding_window: false,
                    hidden_act: Activation::Silu,
                    decoder_sparse_step: number("decoder_sparse_step"),
                    moe_intermediate_size: number("moe_intermediate_size"),
                    num_experts_per_tok: number("num_experts_per_tok"),
                    num_experts: number("num_experts"),
                    norm_topk_prob: flag("norm_topk_prob"),
                };
                let model = qwen3_moe::ModelForCausalLM::new(&config, weights()).expect("loading Qwen3-MoE");
                Self::Qwen3Moe(Box::new(model))
            }
            other => panic!("no candle model for {other:?}"),
        }
    }

    /// The logits after each of `positions` (ascending), given `tokens` from position 0.
    pub fn logits(&mut self, tokens: &[u32], positions: &[usize]) -> Vec<Vec<f32>> {
        assert!(positions.is_sorted_by(|a, b| a < b), "positions must ascend: {positions:?}");
        assert!(tokens.len() <= CONTEXT, "{} tokens, at most {CONTEXT}", tokens.len());
        let mut cache = match self {
            Self::Llama(_, config) => {
                Some(llama::Cache::new(true, DType::F32, config, &Device::Cpu).expect("a Llama cache"))
            }
            Self::Mistral(model) => {
                model.clear_kv_cache();
                None
            }
            Self::Qwen2(model) => {
                model.clear_kv_cache();
                None
            }
            Self::Qwen3(model) => {
                model.clear_kv_cache();
                None
            }
            Self::Qwen3Moe(model) => {
                model.clear_kv_cache();
                None
            }
        };
        let mut fed = 0;
        let mut piece_logits = |position: usize| -> candle_core::Result<Vec<f32>> {
            let start = std::mem::replace(&mut fed, position + 1);
            let input = Tensor::new(&tokens[start..=position], &Device::Cpu)?.unsqueeze(0)?;
            let logits = match (&mut *self, &mut cache) {
                (Self::Llama(model, _), Some(cache)) => model.forward(&input, start, cache)?,
                (Self::Llama(..), None) => unreachable!("made above"),
                (Self::Mistral(model), _) => model.forward(&input, start)?,
                (Self::Qwen2(model), _) => model.forward(&input, start)?,
                (Self::Qwen3(model), _) => model.forward(&input, start)?,
                (Self::Qwen3Moe(model), _) => model.forward(&input, start)?,
            };
            logits.flatten_all()?.to_vec1()
        };
        positions.iter().map(|&position| piece_logits(position).expect("a candle forward")).collect()
    }
}

/// The logits of the model in `folder` after each of `positions` (ascending), given `tokens` from position 0.
pub fn logits(folder: &Path, tokens: &[u32], positions: &[usize]) -> Vec<Vec<f32>> {
    CandleModel::load(folder).logits(tokens, positions)
}

/// The tensors of every `.safetensors` file in `folder`.
fn read_tensors(folder: &Path) -> HashMap<String, Tensor> {
    let files = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut tensors = HashMap::new();
    for file in files {
        let path = file.expect("a folder entry").path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let read = candle_core::safetensors::load(&path, &Device::Cpu);
            tensors.extend(read.unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        }
    }
    tensors
}
