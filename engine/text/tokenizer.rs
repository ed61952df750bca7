//! Text → tokens and back, through the `tokenizers` crate.
//! A chat prompt already holds its special tokens as text and must not get a second begin token, so every call says
//! which kind of text it has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::AddedToken;

use super::pieces::{self, Leading, Pieces};
use crate::error::{Error, Result};

/// Treatment of special tokens. Those written out in the text become single tokens either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A plain text: the tokenizer puts around it what the model expects (a begin token, if any).
    Add,
    /// A rendered chat template: it holds all it needs, and nothing is put around it.
    Keep,
}

/// A model's tokenizer. Clones share it.
#[derive(Clone)]
pub struct Tokenizer {
    shared: Arc<Shared>,
    /// Ids from here on have no row in the model's embedding.
    vocab_size: usize,
}

struct Shared {
    path: PathBuf,
    tokenizer: tokenizers::Tokenizer,
    pieces: Pieces,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Tokenizer`].
    pub fn from_file(path: &Path) -> Result<Tokenizer> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Tokenizer::from_bytes(path, &bytes)
    }

    /// As [`Tokenizer::from_file`], from the bytes of one; `path` is what to call it in messages.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`].
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Tokenizer> {
        let tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| fault(path, error.to_string()))?;
        Tokenizer::new(path, tokenizer)
    }

    /// As [`Tokenizer::from_bytes`], with tokens of other files: `listed` ones, which take the place of the file's, and `added`
    /// ones, where the file does not know them; ids of new ones follow the file's.
    pub(crate) fn with_added(
        path: &Path,
        bytes: &[u8],
        listed: Vec<AddedToken>,
        added: Vec<AddedToken>,
    ) -> Result<Tokenizer> {
        let library = |error: tokenizers::Error| fault(path, error.to_string());
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(library)?;
        tokenizer.add_tokens(listed).map_err(library)?;
        let known = tokenizer.get_added_tokens_decoder();
        let is_new = |token: &AddedToken| !known.values().any(|known| known.content == token.content);
        tokenizer.add_tokens(added.into_iter().filter(is_new)).map_err(library)?;
        Tokenizer::new(path, tokenizer)
    }

    /// Takes a tokenizer that was built elsewhere; `path` is where it came from, for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`].
    pub fn new(path: &Path, mut tokenizer: tokenizers::Tokenizer) -> Result<Tokenizer> {
        // Some files carry the truncation and padding of their training. A prompt is never cut or filled up.
        tokenizer.with_truncation(None).map_err(|error| fault(path, error.to_string()))?;
        tokenizer.with_padding(None);
        let pieces = Pieces::of(&tokenizer);
        let shared = Shared { path: path.to_owned(), tokenizer, pieces };
        Ok(Tokenizer { shared: Arc::new(shared), vocab_size: u32::MAX as usize + 1 })
    }

    /// Ties the tokenizer to a model whose embedding has `vocab_size` rows.
    ///
    /// Added tokens past the end are let through here, since many models carry one that is never used (a padding
    /// token, say); a text that holds such a token is refused by [`Tokenizer::encode`].
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] if a token of the vocabulary proper lies past the end: the files belong to
    /// different models.
    pub fn for_vocab(self, vocab_size: usize) -> Result<Tokenizer> {
        let vocabulary = self.shared.tokenizer.get_vocab(false);
        if let Some((token, id)) =
            vocabulary.iter().max_by_key(|(_, id)| **id).filter(|(_, id)| **id as usize >= vocab_size)
        {
            let reason = format!("token {id} ({token:?}) is outside the model's vocabulary of {vocab_size} tokens");
            return Err(fault(&self.shared.path, reason));
        }
        Ok(Tokenizer { vocab_size, ..self })
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`]; [`Error::TokenRange`] for a token the model has no embedding of.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>> {
        let encoding = self
            .shared
            .tokenizer
            .encode_fast(text, special == Special::Add)
            .map_err(|error| fault(&self.shared.path, error.to_string()))?;
        let ids = encoding.get_ids();
        match ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            Some(&id) => Err(Error::TokenRange { what: "the prompt's token", id, vocab: self.vocab_size }),
            None => Ok(ids.to_vec()),
        }
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> usize {
        let vocabulary = self.shared.tokenizer.get_vocab(true);
        vocabulary.values().max().map_or(0, |&id| id as usize + 1)
    }

    /// The token `id` as the vocabulary writes it (`Ġthe`, `▁the`, `<|im_end|>`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.shared.tokenizer.id_to_token(id)
    }

    /// The id of a token as the vocabulary writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.shared.tokenizer.token_to_id(token)
    }

    /// The bytes that the token `id` adds to a text, which need not be whole characters; of one that steers the model, its
    /// name. Empty for an id that is no token.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        let Some(text) = self.token(id) else { return Vec::new() };
        if self.is_special(id) {
            return text.into_bytes();
        }
        match self.pieces() {
            Pieces::ByteLevel => pieces::byte_level(&text),
            Pieces::SentencePiece { replacements, bytes, leading } => {
                let text = pieces::replaced(text, replacements);
                match (pieces::fallback_byte(&text).filter(|_| *bytes), leading) {
                    (Some(byte), _) => vec![byte],
                    (None, Leading::Metaspace(space, _)) => text.replace(*space, " ").into_bytes(),
                    (None, _) => text.into_bytes(),
                }
            }
            Pieces::Other => self.decode_whole(&[id]).into_bytes(),
        }
    }

    /// Returns `true` if `id` steers the model and is no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.token(id).is_some_and(|token| self.shared.tokenizer.get_added_vocabulary().is_special_token(&token))
    }

    /// Checks that a draft's tokens, these, mean what the target's mean, and returns the special tokens that have other
    /// names there: versions of a family rename those, which a draft for all of them never proposes with profit.
    ///
    /// Only the ids that both have are compared: vocabularies are padded to different lengths, and a parallel draft has
    /// a `mask_token` that its target may not know or may name differently.
    ///
    /// # Errors
    ///
    /// [`Error::TokenizerMismatch`], with the first id that differs.
    pub fn check_target(&self, target: &Tokenizer, mask_token: Option<u32>) -> Result<Vec<(u32, String, String)>> {
        let mut renamed = Vec::new();
        for difference in self.differences(target).filter(|(id, ..)| Some(*id) != mask_token) {
            let id = difference.0;
            if !(self.is_special(id) && target.is_special(id)) {
                let (id, draft, target) = difference;
                return Err(Error::TokenizerMismatch { id, draft, target });
            }
            renamed.push(difference);
        }
        Ok(renamed)
    }

    /// The first id that means different tokens here and in `other`, with both tokens.
    pub fn first_difference(&self, other: &Tokenizer) -> Option<(u32, String, String)> {
        self.differences(other).next()
    }

    fn differences(&self, other: &Tokenizer) -> impl Iterator<Item = (u32, String, String)> {
        let shared = self.vocab_size().min(other.vocab_size()).min(u32::MAX as usize) as u32;
        (0..shared).filter_map(|id| {
            let (ours, theirs) = (self.token(id)?, other.token(id)?);
            // GGUF files give names to the rows that only pad the embedding.
            let padding = |token: &String| *token == format!("[PAD{id}]");
            (ours != theirs && !padding(&ours) && !padding(&theirs)).then_some((id, ours, theirs))
        })
    }

    /// Returns the contents of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`].
    pub fn to_json(&self) -> Result<String> {
        self.shared.tokenizer.to_string(true).map_err(|error| fault(&self.shared.path, error.to_string()))
    }

    /// Returns `true` if a text's tokens do not depend on what stands before it, but for words that it cuts.
    pub(super) fn is_byte_level(&self) -> bool {
        matches!(self.pieces(), Pieces::ByteLevel)
    }

    pub(super) fn pieces(&self) -> &Pieces {
        &self.shared.pieces
    }

    /// The crate's own decoding, for decoders that [`Pieces`] does not take apart.
    pub(super) fn decode_whole(&self, tokens: &[u32]) -> String {
        self.shared.tokenizer.decode(tokens, false).unwrap_or_default()
    }
}

fn fault(path: &Path, reason: String) -> Error {
    Error::Tokenizer { path: path.to_owned(), reason }
}
