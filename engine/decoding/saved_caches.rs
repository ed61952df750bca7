//! Caches of a sequence in a file: a conversation goes on in another process without its tokens being read again, and its
//! draft proposes as if it had never been away.
//!
//! The file is safetensors: `tokens`, those that the sequence has committed; `target.N` and `draft.N`, the bytes of each layer's
//! cache; `states`, the target's states that a draft reads. Its metadata say which models and plans the bytes are of, and have
//! a checksum of all of it. They name no tokenizer: the keys and values of a token are the same whatever text it stands for.

use std::collections::HashMap;
use std::path::Path;

use safetensors::{SafeTensorError, SafeTensors};

use super::draft_runner::DraftRunner;
use super::sequence::Sequence;
use crate::checkpoint::export::{StoredTensor, write_tensors};
use crate::checkpoint::storage::Bytes;
use crate::error::{Error, Result};
use crate::model::ModelRunner;
use crate::ops::Session;

/// Changes where the layout of caches or of the file does.
const VERSION: &str = "1";

const FORMAT: &str = "pard caches";
const TARGET: &str = "target";
const DRAFT: &str = "draft";
const CHECKSUM: &str = "crc32";
const TOKENS: &str = "tokens";
const STATES: &str = "states";

impl Sequence {
    /// Writes its tokens and caches, those of its draft included, to the file `path`, for [`Sequence::restore_caches`].
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPrompt`] before [`Sequence::start`]; [`Error::Write`]; as
    /// [`Device::check`](crate::gpu::GpuContext::check).
    pub fn save_caches(&self, path: &Path) -> Result<()> {
        if self.tokens().is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let Session { target_rows, draft_rows, .. } = self.session();
        let mut tensors = vec![(TOKENS.to_owned(), StoredTensor::ids(self.tokens()))];
        let mut metadata = HashMap::from([
            (FORMAT.to_owned(), VERSION.to_owned()),
            (TARGET.to_owned(), described(self.target(), target_rows)?),
        ]);
        tensors.extend(layers(TARGET, self.target().read_slot(self.slot.index, target_rows as usize)?));
        if let Some(draft) = self.draft() {
            metadata.insert(DRAFT.to_owned(), described(&draft.runner, draft_rows)?);
            tensors.extend(layers(DRAFT, draft.runner.read_slot(self.slot.index, draft_rows as usize)?));
            if let Some(states) = &draft.states {
                let device = self.target().model().device();
                let states = states.read_slot(device, self.slot.index, target_rows as usize)?;
                tensors.push((STATES.to_owned(), StoredTensor::f32(vec![states.len()], &states)));
            }
        }
        let sum = checksum(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.data())));
        metadata.insert(CHECKSUM.to_owned(), format!("{sum:08x}"));
        write_tensors(path, &tensors, metadata)
    }

    /// Forgets what came before and goes on where [`Sequence::save_caches`] wrote the file `path`: with [`Sequence::resume`],
    /// which reads what its prompt has beyond the tokens of the file, or with the next round.
    ///
    /// # Errors
    ///
    /// Before anything is changed: [`Error::Io`]; [`Error::Damaged`]; [`Error::OtherCaches`] if they are not of this target and
    /// draft on this adapter; [`Error::ContextFull`] if they are of a longer context. As
    /// [`Device::check`](crate::gpu::GpuContext::check).
    pub fn restore_caches(&mut self, path: &Path) -> Result<()> {
        let bytes = map(path)?;
        let file = SavedFile::new(path, &bytes)?;
        let (tokens, slot) = (file.tokens()?, self.slot.index);
        self.check_prompt(&tokens)?;
        let target_rows = file.check(self.target(), TARGET, tokens.len())?;
        let mut draft_rows = 0;
        if let Some(DraftRunner { runner, states }) = self.draft() {
            draft_rows = file.check(runner, DRAFT, tokens.len())?;
            if let Some(states) = states {
                file.tensor(STATES, size_of::<f32>() * states.slot_values(target_rows))?;
            }
        } else if file.metadata.contains_key(DRAFT) {
            return Err(file.other(DRAFT));
        }
        file.check_sum()?;

        self.prepare()?;
        self.forget();
        file.write(self.target(), TARGET, slot, target_rows)?;
        if let Some(DraftRunner { runner, states }) = self.draft() {
            file.write(runner, DRAFT, slot, draft_rows)?;
            if let Some(states) = states {
                let bytes = file.tensor(STATES, size_of::<f32>() * states.slot_values(target_rows))?;
                let values = bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
                states.write_slot(self.target().model().device(), slot, &values.collect::<Vec<_>>());
            }
        }
        let [target_rows, draft_rows] = [target_rows, draft_rows].map(|rows| rows as u32);
        self.go_on(tokens.clone(), Session { tokens: tokens.len() as u32, target_rows, draft_rows })
    }

    /// The tokens of the file `path`, which [`Sequence::save_caches`] wrote. Nothing else of it is read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Damaged`].
    pub fn saved_tokens(path: &Path) -> Result<Vec<u32>> {
        SavedFile::new(path, &map(path)?)?.tokens()
    }
}

fn map(path: &Path) -> Result<Bytes> {
    Bytes::map(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// What the bits of a model's caches depend on, and how many rows they have.
fn described(runner: &ModelRunner, rows: u32) -> Result<String> {
    Ok(format!("{rows} rows of {}", identity(runner)?))
}

fn identity(runner: &ModelRunner) -> Result<String> {
    let model = runner.model();
    let (layers, plan, adapter) = (model.config().layers, model.plan(), model.device().name());
    Ok(format!("{:08x} ({layers} layers; {plan}; {adapter})", runner.fingerprint()?))
}

fn layers(of: &str, caches: Vec<Vec<u8>>) -> impl Iterator<Item = (String, StoredTensor)> {
    caches.into_iter().enumerate().map(move |(layer, bytes)| (layer_name(of, layer), StoredTensor::bytes(bytes)))
}

fn layer_name(of: &str, layer: usize) -> String {
    format!("{of}.{layer:04}")
}

/// The checksum of tensors, in the order of their names.
fn checksum<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> u32 {
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_unstable();
    let mut sum = crc32fast::Hasher::new();
    for (name, bytes) in tensors {
        sum.update(name.as_bytes());
        sum.update(bytes);
    }
    sum.finalize()
}

/// A file of caches.
struct SavedFile<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> SavedFile<'a> {
    /// The file `path`, which holds `bytes`.
    fn new(path: &'a Path, bytes: &'a [u8]) -> Result<SavedFile<'a>> {
        let damaged = |error: SafeTensorError| Error::Damaged { path: path.to_owned(), reason: error.to_string() };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let file = SavedFile { path, tensors, metadata: header.metadata().clone().unwrap_or_default() };
        match file.metadata.get(FORMAT).map(String::as_str) {
            Some(VERSION) => Ok(file),
            Some(_) => Err(file.other("release")),
            None => Err(file.damaged("it is no file of saved caches".to_owned())),
        }
    }

    fn damaged(&self, reason: String) -> Error {
        Error::Damaged { path: self.path.to_owned(), reason }
    }

    fn other(&self, what: &'static str) -> Error {
        Error::OtherCaches { path: self.path.to_owned(), what }
    }

    fn tokens(&self) -> Result<Vec<u32>> {
        let tokens = self.tensors.tensor(TOKENS).map_err(|error| self.damaged(error.to_string()))?;
        Ok(tokens.data().as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect())
    }

    /// The bytes of the tensor `name`, which has to have `len` of them.
    fn tensor(&self, name: &str, len: usize) -> Result<&'a [u8]> {
        let tensor = self.tensors.tensor(name).map_err(|error| self.damaged(error.to_string()))?;
        if tensor.data().len() != len {
            return Err(self.damaged(format!("{name} has {} bytes, not {len}", tensor.data().len())));
        }
        Ok(tensor.data())
    }

    /// Checks that it has the caches of the model of `runner`, which is the one called `of` there, and returns their rows.
    fn check(&self, runner: &ModelRunner, of: &'static str, tokens: usize) -> Result<usize> {
        let (rows, model) =
            self.metadata.get(of).and_then(|text| text.split_once(" rows of ")).ok_or(self.other(of))?;
        if model != identity(runner)? {
            return Err(self.other(of));
        }
        let rows = rows.parse().ok().filter(|&rows| rows < tokens);
        let rows = rows.ok_or_else(|| self.damaged(format!("the {of} has not read so many of {tokens} tokens")))?;
        for layer in 0..runner.cached_layers() {
            self.tensor(&layer_name(of, layer), runner.slot_bytes(rows))?;
        }
        Ok(rows)
    }

    fn check_sum(&self) -> Result<()> {
        let sum = checksum(self.tensors.iter().map(|(name, tensor)| (name, tensor.data())));
        match self.metadata.get(CHECKSUM) {
            Some(expected) if *expected == format!("{sum:08x}") => Ok(()),
            _ => Err(self.damaged("its checksum is not that of its contents".to_owned())),
        }
    }

    /// Puts the caches of `of` into slot `slot` of `runner`.
    fn write(&self, runner: &ModelRunner, of: &str, slot: usize, rows: usize) -> Result<()> {
        (0..runner.cached_layers()).try_for_each(|layer| {
            let bytes = self.tensor(&layer_name(of, layer), runner.slot_bytes(rows))?;
            runner.write_slot(slot, rows, layer, bytes)
        })
    }
}
