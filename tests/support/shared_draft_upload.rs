//! A draft without embeddings of its own, on a device.

use std::sync::Arc;

use pard::Result;
use pard::checkpoint::config::Config;
use pard::low_level::forward::tied_draft::{MASK_EMBEDDING, VOCABULARY};
use pard::low_level::gpu::{Device, KernelPlan};
use pard::model::{MemoryPlan, WeightDtype, Weights};

use super::gpu::{device, upload_tensors};
use super::memory::Memory;
use super::shared_draft::{EMBEDDING, HEAD, SharedDraft};
use super::tiny_model::{Recipe, Stored};

impl SharedDraft {
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
}
