//! Drafts without embeddings of their own, made from the recipe of a target: its embeddings, some model's layers.

use std::path::Path;

use half::bf16;
use pard::checkpoint::config::Config;
use pard::low_level::forward::tied_draft::{MASK_EMBEDDING, VOCABULARY};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::random::Random;
use super::tiny_model::{Recipe, Stored, Tensors, to_bf16, write_json};

/// Contents of its files.
pub struct SharedDraft {
    pub config: Config,
    /// Layers, final norm and the mask's row.
    pub tensors: Tensors,
    /// The ids of the head's rows, if it has not got all.
    pub vocabulary: Option<Vec<u32>>,
}

pub const EMBEDDING: &str = "model.embed_tokens.weight";
pub const HEAD: &str = "lm_head.weight";

impl SharedDraft {
    /// A draft with the layers of `layers`, whose mask token is `mask`.
    pub fn new(layers: &Recipe, mask: u32, vocabulary: Option<Vec<u32>>) -> SharedDraft {
        let config = Config { shared_embeddings: true, mask_token: Some(mask), ..layers.config.clone() };
        let hidden = config.hidden_size;
        let mut tensors = layers.tensors();
        tensors.retain(|name, _| ![EMBEDDING, HEAD].contains(&name.as_str()));
        let row = Random::new(77).normals(hidden, 1.0).into_iter().map(|value| bf16::from_f32(value).to_f32());
        tensors.insert(MASK_EMBEDDING.to_owned(), Stored { shape: vec![hidden], values: row.collect() });
        SharedDraft { config, tensors, vocabulary }
    }

    /// Every third token and the last: a reduced vocabulary.
    pub fn third(vocab_size: usize) -> Vec<u32> {
        (1..vocab_size as u32 - 1).step_by(3).chain([vocab_size as u32 - 1]).collect()
    }

    /// Writes its folder, which holds no tokenizer.
    pub fn write(&self, folder: &Path) {
        let mut bytes: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        for (name, stored) in &self.tensors {
            bytes.push((name, Dtype::BF16, stored.shape.clone(), to_bf16(&stored.values)));
        }
        if let Some(ids) = &self.vocabulary {
            let values = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            bytes.push((VOCABULARY, Dtype::I32, vec![ids.len()], values));
        }
        let views = bytes.iter().map(|(name, dtype, shape, bytes)| {
            (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("a shape of this length"))
        });
        let serialised = safetensors::serialize(views, None).expect("serialising");
        std::fs::write(folder.join("model.safetensors"), serialised).expect("writing safetensors");
        let recipe = Recipe { seed: 0, config: self.config.clone(), duplicate_head: false, shards: 1 };
        let mut json = recipe.config_json();
        json["shared_embeddings"] = json!(true);
        write_json(&folder.join("config.json"), &json);
    }
}
