//! The draft as it stands, as a model folder.

use std::path::Path;

use super::network::{Network, NetworkOptions};
use crate::checkpoint::config::Config;
use crate::checkpoint::export::{StoredTensor, write_draft};
use crate::checkpoint::hugging_face::TARGET_PROJECTION;
use crate::error::Result;
use crate::gpu::Device;
use crate::model::tied_draft::{MASK_EMBEDDING, VOCABULARY};
use crate::text::ChatTokenizer;

/// Embeddings stored in a draft's folder, in addition to the trained parameters.
#[derive(Clone, Copy)]
pub enum Embeddings<'a> {
    /// None of its own: those of its target are used.
    OfTheTarget,
    /// Its own, with the tokenizer that goes with them.
    Own(&'a ChatTokenizer),
}

/// Writes the draft that `network` is, made by `recipe`, to `folder`.
///
/// # Errors
///
/// [`crate::Error::Write`]; as [`Device::check`](crate::gpu::GpuContext::check); those of reading the base's embeddings.
pub fn write(
    folder: &Path,
    device: &Device,
    network: &Network,
    recipe: &NetworkOptions,
    embeddings: Embeddings,
) -> Result<()> {
    let config = Config {
        mask_token: Some(recipe.mask_token),
        target_layers: recipe.target(),
        ..recipe.config.of_layers(recipe.layers)
    };
    let (mut tensors, mut projection) = (Vec::new(), None);
    for parameter in network.parameters() {
        let values = parameter.read(device)?;
        let mut at = 0;
        for (name, height) in parameter.tensors() {
            let shape = parameter.shape(*height);
            let len: usize = shape.iter().product();
            let stored = StoredTensor::bf16(shape, &values[at..at + len]);
            match name == TARGET_PROJECTION {
                true => projection = Some(stored),
                false => tensors.push((name.clone(), stored)),
            }
            at += len;
        }
    }
    if let Some(ids) = recipe.vocabulary {
        tensors.push((VOCABULARY.to_owned(), StoredTensor::ids(ids)));
    }
    let text = match embeddings {
        Embeddings::OfTheTarget => None,
        Embeddings::Own(text) => {
            if recipe.freeze_embeddings {
                own_tables(device, network, recipe, &mut tensors)?;
            }
            Some(text)
        }
    };
    write_draft(folder, &config, &tensors, projection.as_ref(), text.is_none(), text)
}

/// Puts the base's own tables among `tensors`, with the mask's trained row in its place.
fn own_tables(
    device: &Device,
    network: &Network,
    recipe: &NetworkOptions,
    tensors: &mut Vec<(String, StoredTensor)>,
) -> Result<()> {
    let Config { vocab_size, hidden_size, tied_head, .. } = *recipe.config;
    let mut values = vec![0.0; vocab_size * hidden_size];
    let read = |name: &str, values: &mut [f32]| recipe.checkpoint.read_rows(name, 0..vocab_size, values);
    read("model.embed_tokens.weight", &mut values)?;
    if let Some(mask) = network.parameters().find(|parameter| parameter.tensors()[0].0 == MASK_EMBEDDING) {
        let at = recipe.mask_token as usize * hidden_size;
        values[at..at + hidden_size].copy_from_slice(&mask.read(device)?);
        tensors.retain(|(name, _)| name != MASK_EMBEDDING);
    }
    let shape = vec![vocab_size, hidden_size];
    tensors.push(("model.embed_tokens.weight".to_owned(), StoredTensor::bf16(shape.clone(), &values)));
    if !tied_head {
        read("lm_head.weight", &mut values)?;
        tensors.push(("lm_head.weight".to_owned(), StoredTensor::bf16(shape, &values)));
    }
    Ok(())
}
