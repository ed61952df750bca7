//! A model folder in Hugging Face form: [`Config`] → `config.json`, tensors → `model.safetensors`, and the tokenizer's
//! files. Each file is written beside its place and moved there whole, so that a killed run leaves no half of one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, View};
use serde_json::{Value, json};

use super::config::{Config, RopeScaling, Yarn};
use super::families::Windows;
use super::hugging_face::{PROJECTION_FILE, TARGET_PROJECTION};
use super::safetensors::SINGLE_FILE;
use super::torch_file::{self, Bf16Tensor};
use crate::error::{Error, Result};
use crate::text::ChatTokenizer;

/// A tensor as it is stored.
pub struct StoredTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl StoredTensor {
    /// Values rounded to BF16.
    pub fn bf16(shape: Vec<usize>, values: &[f32]) -> StoredTensor {
        let bytes = values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect();
        StoredTensor { dtype: Dtype::BF16, shape, bytes }
    }

    /// Values as they are.
    pub fn f32(shape: Vec<usize>, values: &[f32]) -> StoredTensor {
        StoredTensor { dtype: Dtype::F32, shape, bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }

    /// Bytes that are no numbers to others.
    pub fn bytes(bytes: Vec<u8>) -> StoredTensor {
        StoredTensor { dtype: Dtype::U8, shape: vec![bytes.len()], bytes }
    }

    /// Its bytes.
    pub fn data(&self) -> &[u8] {
        &self.bytes
    }

    /// Token ids.
    pub fn ids(ids: &[u32]) -> StoredTensor {
        let bytes = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        StoredTensor { dtype: Dtype::U32, shape: vec![ids.len()], bytes }
    }
}

impl View for &StoredTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes `tensors` as one safetensors file with `metadata`.
///
/// # Errors
///
/// [`Error::Write`].
pub fn write_tensors(path: &Path, tensors: &[(String, StoredTensor)], metadata: HashMap<String, String>) -> Result<()> {
    let views = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_whole(path, |path| safetensors::serialize_to_file(views, Some(metadata), path).map_err(std::io::Error::other))
}

/// Writes a PARD draft: `model.safetensors`, `config.json`, `warp_model.bin` with the projection of its target's states if
/// it reads some, and the tokenizer's files if `text` is given, which a draft with the target's embeddings goes without.
///
/// # Errors
///
/// [`Error::Write`], [`Error::Tokenizer`].
pub fn write_draft(
    folder: &Path,
    config: &Config,
    tensors: &[(String, StoredTensor)],
    projection: Option<&StoredTensor>,
    shares_embeddings: bool,
    text: Option<&ChatTokenizer>,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })?;
    if let Some(text) = text {
        write_tokenizer(folder, text)?;
    }
    write_tensors(&folder.join(SINGLE_FILE), tensors, HashMap::from([("format".to_owned(), "pt".to_owned())]))?;
    let projection_path = folder.join(PROJECTION_FILE);
    match projection {
        Some(StoredTensor { shape, bytes, .. }) => {
            let tensors = [Bf16Tensor { name: TARGET_PROJECTION, shape, bytes }];
            write_whole(&projection_path, |path| std::fs::write(path, torch_file::archive("warp_model", &tensors)?))?;
        }
        // That of an earlier draft in this folder.
        None => match std::fs::remove_file(&projection_path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Write { path: projection_path, source });
            }
            _ => {}
        },
    }
    let mut json = config_json(config);
    if shares_embeddings {
        json["shared_embeddings"] = json!(true);
    }
    if let Some(text) = text
        && !text.stop_tokens.is_empty()
    {
        json["eos_token_id"] = json!(text.stop_tokens);
    }
    write_json(&folder.join("config.json"), &json)
}

/// Returns `config` with the keys and values of `transformers`.
fn config_json(config: &Config) -> Value {
    let family = config.family.definition();
    let scaling = match config.rope_scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_context as u64,
        }),
        RopeScaling::Yarn(yarn) => yarn_json(&yarn),
        RopeScaling::Factors => Value::Null,
    };
    let mut json = json!({
        "architectures": [family.class],
        "model_type": family.model_type,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.feed_forward_size,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": config.tied_head,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
    });
    if family.windows != Windows::None {
        // Not left out, since the family may have one by default.
        json["sliding_window"] = Value::Null;
    }
    if let Some(window) = &config.sliding_window {
        let kind = |slides: &bool| if *slides { "sliding_attention" } else { "full_attention" };
        json["use_sliding_window"] = json!(true);
        json["sliding_window"] = json!(window.tokens);
        json["layer_types"] = window.layers.iter().map(kind).collect();
    }
    if let Some(mask) = config.mask_token {
        json["spd_type"] = json!("pard");
        json["pard_token"] = json!(mask);
    }
    if let Some(target) = &config.target_layers {
        json["spd_type"] = json!("pard2");
        json["pard2"] = json!(true);
        json["pard2_target_layers"] = json!(target.layers);
        json["pard2_target_dim"] = json!(target.width());
        // In the shortest decimal that is this f32, and not that of the f64.
        json["pard2_scale"] = json!(target.scale.to_string().parse::<f64>().unwrap_or(target.scale.into()));
        json["pard2_proj_bias"] = json!(target.bias);
    }
    json
}

fn yarn_json(yarn: &Yarn) -> Value {
    json!({
        "rope_type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_context as u64,
        "beta_fast": yarn.beta_fast,
        "beta_slow": yarn.beta_slow,
        "attention_factor": yarn.attention_factor,
        "truncate": yarn.truncate,
    })
}

/// `tokenizer.json`, `tokenizer_config.json` and `generation_config.json`.
fn write_tokenizer(folder: &Path, text: &ChatTokenizer) -> Result<()> {
    let tokenizer = text.tokenizer.to_json()?;
    write_whole(&folder.join("tokenizer.json"), |path| std::fs::write(path, &tokenizer))?;
    let mut settings = json!({ "tokenizer_class": "PreTrainedTokenizerFast" });
    for (name, token) in &text.special_tokens {
        settings[name] = json!(token);
    }
    if let Some(template) = &text.template {
        settings["chat_template"] = json!(template);
    }
    write_json(&folder.join("tokenizer_config.json"), &settings)?;
    write_json(&folder.join("generation_config.json"), &json!({ "eos_token_id": text.stop_tokens }))
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_whole(path, |path| std::fs::write(path, format!("{value:#}\n")))
}

/// Has `write` make a file beside `path`, and moves it there once it is on the disk.
fn write_whole(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = Path::new(&beside);
    let written = || {
        // Some writers make a file that is its owner's alone; this one is to be what the user's other files are.
        let usual = std::fs::File::create(beside)?.metadata()?.permissions();
        write(beside)?;
        std::fs::set_permissions(beside, usual)
    };
    let moved = written().and_then(|()| {
        std::fs::OpenOptions::new().write(true).open(beside)?.sync_all()?;
        std::fs::rename(beside, path)
    });
    moved.map_err(|source| Error::Write { path: path.to_owned(), source })
}
