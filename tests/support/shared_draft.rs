//! Drafts without embeddings of their own, made from the recipe of a target: its embeddings, some model's layers.

use std::path::Path;
use std::sync::Arc;

use half::bf16;
use pard_engine::Result;
use pard_engine::checkpoint::config::Config;
use pard_engine::gpu::{Device, KernelPlan};
use pard_engine::model::tied_draft::{MASK_EMBEDDING, VOCABULARY};
use pard_engine::model::{MemoryPlan, WeightDtype, Weights};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::gpu::{device, upload_tensors};
use super::memory::Memory;
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

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

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

    fn memory(&self) -> Memory {
        Memory::with_ids(self.tensors.clone(), self.vocabulary.as_ref().map(|ids| (VOCABULARY, ids.clone())))
    }

    /// Uploads it beside `target`.
    pub fn upload(&self, target: &Weights, plan: &KernelPlan) -> Result<Arc<Weights>> {
        self.upload_on(device(), target, plan)
    }

    /// The same on another device than that of the tests.
    pub fn upload_on(&self, device: &Device, target: &Weights, plan: &KernelPlan) -> Result<Arc<Weights>> {
        let (memory, choice) = (self.memory(), WeightDtype::Compact);
        Weights::upload_draft(device, plan, &self.config, &memory, target, choice, &|_, _| ()).map(Arc::new)
    }

    /// Its memory plan beside a target with that plan.
    pub fn blueprint(&self, target: &MemoryPlan) -> Result<MemoryPlan> {
        MemoryPlan::new(&self.config, &self.memory(), WeightDtype::Compact, Some(target))
    }

    /// The memory it should take.
    pub fn expected_bytes(&self) -> Result<u64> {
        Weights::expected_bytes(&self.config, &self.memory(), WeightDtype::Compact)
    }

    /// Uploads the same draft as a whole model: with copies of the embeddings of `target`, the mask's row put in, and of
    /// all its head.
    pub fn upload_whole(&self, target: &Recipe, plan: &KernelPlan) -> Arc<Weights> {
        let mask = self.config.mask_token.expect("a mask token") as usize;
        let hidden = self.config.hidden_size;
        let vocab_size = self.config.vocab_size.max(mask + 1);
        let config =
            Config { shared_embeddings: false, tied_head: false, vocab_size, mask_token: None, ..self.config.clone() };
        let of_target = target.tensors();
        let padded = |name: &str| {
            let mut values = of_target[name].values.clone();
            values.resize(vocab_size * hidden, 0.0);
            Stored { shape: vec![vocab_size, hidden], values }
        };
        let mut tensors = self.tensors.clone();
        let row = tensors.remove(MASK_EMBEDDING).expect("the mask's row").values;
        let mut embedding = padded(EMBEDDING);
        embedding.values[mask * hidden..][..hidden].copy_from_slice(&row);
        tensors.insert(EMBEDDING.to_owned(), embedding);
        tensors.insert(HEAD.to_owned(), padded(if target.config.tied_head { EMBEDDING } else { HEAD }));
        upload_tensors(&config, tensors, plan)
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
