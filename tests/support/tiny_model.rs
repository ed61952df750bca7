//! Small models of each family with random weights, written as Hugging Face folders.
//! Shapes are chosen to be unlike each other: a q width unlike hidden, odd vocabularies, grouped queries. Weights have
//! deviation 1/√depth, so that activations stay near 1; keys are sharper, so that the text depends on the context.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::bf16;
use pard::checkpoint::config::{Config, Experts, Family, RopeScaling, SlidingWindow, Yarn};
use pard::low_level::ops::WeightFormat;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::random::Random;
use super::tiny_tokenizer;

/// Description of a model. Start from one of the three functions and change fields.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Names the weights.
    pub seed: u64,
    /// The sizes and the family's terms.
    pub config: Config,
    /// Set if a tied head is stored all the same, as some published models do.
    pub duplicate_head: bool,
    /// Files the weights are split over; more than one come with an index.
    pub shards: usize,
}

/// A tensor as stored: BF16 values, widened.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: Vec<f32>,
}

/// All tensors by their Hugging Face names.
pub type Tensors = BTreeMap<String, Stored>;

impl Recipe {
    /// Llama 3.1: llama3 rope scaling whose three regions all hold frequencies; an untied head.
    pub fn llama(seed: u64) -> Self {
        let rope_scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64.0 };
        let config = Config { rope_scaling, rope_theta: 500_000.0, ..Self::base(Family::Llama) };
        Self { seed, config, duplicate_head: false, shards: 1 }
    }

    /// Qwen2: a bias on q, k and v; a tied head.
    pub fn qwen2(seed: u64) -> Self {
        let config = Config {
            hidden_size: 192,
            heads: 6,
            kv_heads: 2,
            vocab_size: 320,
            tied_head: true,
            qkv_bias: true,
            ..Self::base(Family::Qwen2)
        };
        Self { seed, config, duplicate_head: false, shards: 1 }
    }

    /// Qwen3: q and k normalised per head, heads wider than hidden / heads, a tied head that is stored twice.
    pub fn qwen3(seed: u64) -> Self {
        let config = Config {
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            vocab_size: 311,
            tied_head: true,
            head_norm: true,
            ..Self::base(Family::Qwen3)
        };
        Self { seed, config, duplicate_head: true, shards: 2 }
    }

    /// Qwen3-MoE: 8 experts in each layer, of which a row takes 2.
    pub fn qwen3_moe(seed: u64) -> Self {
        let experts =
            Experts { count: 8, used: 2, feed_forward_size: 64, normalised: true, layers: vec![true, true, true] };
        let plain = Self::qwen3(seed);
        Self { config: Config { family: Family::Qwen3Moe, experts: Some(experts), ..plain.config }, ..plain }
    }

    /// Qwen3-MoE with experts in its second layer alone, whose shares do not add up to 1.
    pub fn partly_mixed(seed: u64) -> Self {
        let mut recipe = Self::qwen3_moe(seed);
        let experts = recipe.config.experts.as_mut().expect("experts");
        (experts.used, experts.normalised, experts.layers) = (3, false, vec![false, true, false]);
        recipe
    }

    /// Qwen2 stretched by YaRN from so short a context that the first tokens are turned by all its terms.
    pub fn stretched(seed: u64) -> Self {
        let rope_scaling = RopeScaling::Yarn(Yarn { beta_fast: 8.0, ..Yarn::new(4.0, 1000.0) });
        let plain = Self::qwen2(seed);
        Self { config: Config { rope_scaling, context: 4000, ..plain.config }, ..plain }
    }

    /// Mistral: a window over every layer.
    pub fn mistral(seed: u64) -> Self {
        let sliding_window = Some(SlidingWindow { tokens: 21, layers: vec![true; 3] });
        let config = Config { sliding_window, rope_theta: 10_000.0, ..Self::base(Family::Mistral) };
        Self { seed, config, duplicate_head: false, shards: 1 }
    }

    /// Qwen2 with a window from its second layer on, as `max_window_layers: 1` has it.
    pub fn partly_windowed(seed: u64) -> Self {
        let plain = Self::qwen2(seed);
        let sliding_window = Some(SlidingWindow { tokens: 18, layers: vec![false, true, true] });
        Self { config: Config { sliding_window, ..plain.config }, ..plain }
    }

    /// One of each family.
    pub fn each_family(seed: u64) -> [Self; 3] {
        [Self::llama(seed), Self::qwen2(seed), Self::qwen3(seed)]
    }

    fn base(family: Family) -> Config {
        Config {
            family,
            hidden_size: 96,
            layers: 3,
            heads: 3,
            kv_heads: 1,
            head_dim: 32,
            feed_forward_size: 136,
            experts: None,
            vocab_size: 307,
            norm_epsilon: 1e-6,
            rope_theta: 1e6,
            rope_scaling: RopeScaling::None,
            rope_factors: Vec::new(),
            sliding_window: None,
            tied_head: false,
            qkv_bias: false,
            head_norm: false,
            context: 512,
            mask_token: None,
            shared_embeddings: false,
            target_layers: None,
        }
    }

    /// Writes the folder, tokenizer included, and returns its tensors.
    pub fn write(&self, folder: &Path) -> Tensors {
        self.config.check(folder).expect("a recipe the engine accepts");
        let tensors = self.tensors();
        write_safetensors(folder, &tensors, self.shards, WeightFormat::Bf16);
        write_json(&folder.join("config.json"), &self.config_json());
        tiny_tokenizer::write(folder);
        tensors
    }

    /// The weights, in a fixed order of draws.
    pub fn tensors(&self) -> Tensors {
        let config = &self.config;
        let (hidden, head_dim) = (config.hidden_size, config.head_dim);
        let (query, key_value, inner) = (config.query_size(), config.key_value_size(), config.feed_forward_size);
        let mut random = Random::new(self.seed);
        let mut tensors = Tensors::new();
        let mut draw = |name: String, shape: &[usize], mean: f32, deviation: f32| {
            let len = shape.iter().product();
            let values = (0..len).map(|_| bf16::from_f32(mean + deviation * random.normal()).to_f32()).collect();
            tensors.insert(name, Stored { shape: shape.to_vec(), values });
        };
        let by_depth = |depth: usize| 1.0 / (depth as f32).sqrt();
        // A tied embedding must make logits near 1 as a head; the norms make its scale as an input irrelevant.
        let embedding_deviation = if config.tied_head { by_depth(hidden) } else { 1.0 };
        draw("model.embed_tokens.weight".to_owned(), &[config.vocab_size, hidden], 0.0, embedding_deviation);
        for layer in 0..config.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                draw(name(&format!("{norm}.weight")), &[hidden], 1.0, 0.2);
            }
            let mut matrices = vec![
                ("self_attn.q_proj".to_owned(), query, hidden, 2.0),
                ("self_attn.k_proj".to_owned(), key_value, hidden, 2.0),
                ("self_attn.v_proj".to_owned(), key_value, hidden, 1.0),
                ("self_attn.o_proj".to_owned(), hidden, query, 2.0),
            ];
            let mut feed_forward = |prefix: String, inner: usize| {
                matrices.extend([
                    (format!("{prefix}.gate_proj"), inner, hidden, 1.0),
                    (format!("{prefix}.up_proj"), inner, hidden, 1.0),
                    (format!("{prefix}.down_proj"), hidden, inner, 3.0),
                ]);
            };
            match config.experts_of(layer) {
                None => feed_forward("mlp".to_owned(), inner),
                Some(experts) => {
                    (0..experts.count)
                        .for_each(|expert| feed_forward(format!("mlp.experts.{expert}"), experts.feed_forward_size));
                    matrices.push(("mlp.gate".to_owned(), experts.count, hidden, 2.0));
                }
            }
            for (matrix, out, depth, sharpness) in matrices {
                draw(name(&format!("{matrix}.weight")), &[out, depth], 0.0, sharpness * by_depth(depth));
                if config.qkv_bias && ["q_proj", "k_proj", "v_proj"].iter().any(|part| matrix.ends_with(part)) {
                    draw(name(&format!("{matrix}.bias")), &[out], 0.0, 0.5);
                }
            }
            if config.head_norm {
                for norm in ["q_norm", "k_norm"] {
                    draw(name(&format!("self_attn.{norm}.weight")), &[head_dim], 1.5, 0.3);
                }
            }
        }
        draw("model.norm.weight".to_owned(), &[hidden], 1.0, 0.2);
        if !config.tied_head {
            draw("lm_head.weight".to_owned(), &[config.vocab_size, hidden], 0.0, by_depth(hidden));
        } else if self.duplicate_head {
            let embedding = tensors["model.embed_tokens.weight"].clone();
            tensors.insert("lm_head.weight".to_owned(), embedding);
        }
        tensors
    }

    pub fn config_json(&self) -> Value {
        let config = &self.config;
        let (model_type, architecture) = match config.family {
            Family::Mistral => ("mistral", "MistralForCausalLM"),
            Family::Llama => ("llama", "LlamaForCausalLM"),
            Family::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
            Family::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
            Family::Qwen3Moe => ("qwen3_moe", "Qwen3MoeForCausalLM"),
            other => panic!("{other:?} is not a family of these tests"),
        };
        let rope_scaling = match config.rope_scaling {
            RopeScaling::None => Value::Null,
            RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_context as u64,
            }),
            RopeScaling::Yarn(yarn) => json!({
                "type": "yarn",
                "factor": yarn.factor,
                "original_max_position_embeddings": yarn.original_context as u64,
                "beta_fast": yarn.beta_fast,
                "beta_slow": yarn.beta_slow,
                "attention_factor": yarn.attention_factor,
                "truncate": yarn.truncate,
            }),
            RopeScaling::Factors => panic!("config.json has no form for divisors per frequency"),
        };
        let mut json = json!({
            "architectures": [architecture],
            "model_type": model_type,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.feed_forward_size,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads,
            "vocab_size": config.vocab_size,
            "rms_norm_eps": config.norm_epsilon,
            "rope_theta": config.rope_theta,
            "rope_scaling": rope_scaling,
            "max_position_embeddings": config.context,
            "tie_word_embeddings": config.tied_head,
            "hidden_act": "silu",
            "torch_dtype": "bfloat16",
            "bos_token_id": tiny_tokenizer::special_id(0),
            "eos_token_id": tiny_tokenizer::special_id(2),
        });
        if config.family != Family::Llama {
            json["use_sliding_window"] = json!(false);
            json["sliding_window"] = Value::Null;
            json["max_window_layers"] = json!(config.layers);
        }
        if let Some(window) = &config.sliding_window {
            json["use_sliding_window"] = json!(true);
            json["sliding_window"] = json!(window.tokens);
            json["max_window_layers"] = json!(window.layers.iter().position(|slides| *slides));
            if config.family == Family::Mistral && window.layers.contains(&false) {
                let kind = |slides: &bool| if *slides { "sliding_attention" } else { "full_attention" };
                json["layer_types"] = window.layers.iter().map(kind).collect();
            }
        }
        if let Some(experts) = &config.experts {
            let mixed = |step: &usize| {
                experts.layers.iter().zip(1..).all(|(mixed, number)| *mixed == usize::is_multiple_of(number, *step))
            };
            json["num_experts"] = json!(experts.count);
            json["num_experts_per_tok"] = json!(experts.used);
            json["moe_intermediate_size"] = json!(experts.feed_forward_size);
            json["norm_topk_prob"] = json!(experts.normalised);
            json["decoder_sparse_step"] = json!((1..=config.layers).find(mixed).expect("evenly spaced layers"));
        }
        if config.family != Family::Qwen2 {
            json["head_dim"] = json!(config.head_dim);
            json["attention_bias"] = json!(config.qkv_bias);
        }
        if let Some(mask) = config.mask_token {
            json["spd_type"] = json!("pard");
            json["pard_token"] = json!(mask);
        }
        json
    }
}

/// Writes `value` indented, as Hugging Face does.
pub fn write_json(path: &Path, value: &Value) {
    let text = serde_json::to_string_pretty(value).expect("JSON of plain values");
    std::fs::write(path, text).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
}

/// Writes `tensors` as BF16 or F32, in one file, or in `shards` files with an index.
pub fn write_safetensors(folder: &Path, tensors: &Tensors, shards: usize, format: WeightFormat) {
    let (dtype, width) = if format == WeightFormat::F32 { (Dtype::F32, 4) } else { (Dtype::BF16, 2) };
    let encoded = |stored: &Stored| {
        let mut bytes = vec![0; width * stored.values.len()];
        format.store(&stored.values, &mut bytes);
        bytes
    };
    let named: Vec<(&String, &Stored)> = tensors.iter().collect();
    let mut weight_map = serde_json::Map::new();
    for (shard, part) in named.chunks(named.len().div_ceil(shards)).enumerate() {
        let file = match shards {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{shards:05}.safetensors", shard + 1),
        };
        let bytes: Vec<Cow<[u8]>> = part.iter().map(|(_, stored)| Cow::Owned(encoded(stored))).collect();
        let views = part.iter().zip(&bytes).map(|((name, stored), bytes)| {
            let view = TensorView::new(dtype, stored.shape.clone(), bytes).expect("a shape of this length");
            (name.as_str(), view)
        });
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let serialised = safetensors::serialize(views, Some(metadata)).expect("serialising");
        std::fs::write(folder.join(&file), serialised).expect("writing safetensors");
        weight_map.extend(part.iter().map(|(name, _)| ((*name).clone(), json!(file))));
    }
    if shards > 1 {
        let total_size: usize = tensors.values().map(|stored| width * stored.values.len()).sum();
        let index = json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
        write_json(&folder.join("model.safetensors.index.json"), &index);
    }
}

/// The bytes of `values` in BF16.
pub fn to_bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect()
}
