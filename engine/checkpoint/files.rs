//! A model as it lies on the disk, whatever its format: hyper-parameters, tensors, tokenizer, chat template.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::config::{Config, StateForm};
use super::generation::Generation;
use super::gguf::split::PartName;
use super::gguf::{END_TEXTS, Gguf};
use super::hugging_face::{self, PROJECTION_FILE};
use super::joined::Joined;
use super::json::{self, Object};
use super::safetensors::Safetensors;
use super::special_tokens::{self, SpecialTokens};
use super::storage::{Bytes, Folder, Storage};
use super::torch_file::TorchFile;
use super::{Checkpoint, contents, folder};
use crate::error::{Error, Result};
use crate::text::{ChatTokenizer, Grammars, Tokenizer};

/// All that a model's files say.
pub struct ModelFiles {
    /// The folder or file.
    pub path: PathBuf,
    /// The hyper-parameters, checked.
    pub config: Config,
    /// The tensors.
    pub checkpoint: Box<dyn Checkpoint>,
    /// Between text and its tokens; the tokenizer is held against the hyper-parameters.
    pub text: ChatTokenizer,
}

/// All that a draft's files say: a whole model's, or those of a draft, which need no tokenizer, as it uses its target's.
pub struct DraftFiles {
    /// The folder or file.
    pub path: PathBuf,
    /// The repository's name, or the folder's or file's.
    pub name: String,
    /// The hyper-parameters, checked.
    pub config: Config,
    /// The tensors.
    pub checkpoint: Box<dyn Checkpoint>,
    /// As in [`ModelFiles`], if they hold a tokenizer.
    pub text: Option<ChatTokenizer>,
}

impl DraftFiles {
    /// Opens a folder in Hugging Face form or a GGUF file.
    ///
    /// # Errors
    ///
    /// Those of [`ModelFiles::open`].
    pub fn open(path: &Path) -> Result<DraftFiles> {
        if path.is_dir() {
            return match folder::gguf_file(path, &Folder(path))? {
                Some(file) => DraftFiles::open_file(&path.join(file)),
                None => open_folder(path, folder_name(path), &Folder(path)),
            };
        }
        DraftFiles::open_file(path)
    }

    fn open_file(path: &Path) -> Result<DraftFiles> {
        let text = |part: Option<&OsStr>| part.map_or_else(String::new, |part| part.to_string_lossy().into_owned());
        let part_stem = PartName::parse(&text(path.file_name())).map(|part| part.stem.to_owned());
        open_gguf(path, part_stem.unwrap_or_else(|| text(path.file_stem())), Gguf::open(path)?)
    }

    /// Opens files that lie elsewhere, in memory or in an application's own storage: those of a folder in Hugging Face
    /// form, or a single GGUF file. `name` is the model's name.
    ///
    /// # Errors
    ///
    /// Those of [`ModelFiles::open`].
    pub fn from_storage(name: &str, storage: &dyn Storage) -> Result<DraftFiles> {
        let path = Path::new(name);
        let Some(file) = folder::gguf_file(path, storage)? else { return open_folder(path, name.to_owned(), storage) };
        let place = storage.path(&file);
        let bytes = storage.open(&file).map_err(|source| Error::Io { path: place.clone(), source })?;
        let gguf = Gguf::with_parts(&place, bytes, |part| storage.open(part))?;
        open_gguf(path, name.to_owned(), gguf)
    }

    /// Opens a GGUF file from its bytes; `name` is the model's name unless the file gives one.
    ///
    /// # Errors
    ///
    /// Those of [`ModelFiles::open`].
    pub fn from_gguf(name: &str, bytes: Bytes) -> Result<DraftFiles> {
        let path = Path::new(name);
        open_gguf(path, name.to_owned(), Gguf::from_bytes(path, bytes)?)
    }

    /// The files, if they are a whole model's.
    fn whole(self) -> Result<ModelFiles> {
        let DraftFiles { path, config, checkpoint, text, .. } = self;
        match text {
            _ if config.shared_embeddings => Err(Error::NoEmbeddings { path }),
            Some(text) => Ok(ModelFiles { path, config, checkpoint, text }),
            None => Err(Error::NoModel { name: path.display().to_string(), reason: NO_TOKENIZER.to_owned() }),
        }
    }

    /// The files of a draft for a model whose tokenizer is `target`, which is its own where it has none.
    pub fn beside(self, target: &ChatTokenizer) -> ModelFiles {
        let DraftFiles { path, name, config, checkpoint, text } = self;
        let text = text.unwrap_or_else(|| ChatTokenizer { model_name: name, ..target.clone() });
        ModelFiles { path, config, checkpoint, text }
    }
}

impl ModelFiles {
    /// Opens a folder in Hugging Face form or a GGUF file.
    ///
    /// # Errors
    ///
    /// [`Error::NoModel`]; [`Error::Io`]; [`Error::Damaged`]; [`Error::Config`]; [`Error::UnknownFamily`];
    /// [`Error::Tokenizer`]; [`Error::NoEmbeddings`] for a draft that runs beside its target only; each names the file at
    /// fault.
    pub fn open(path: &Path) -> Result<ModelFiles> {
        DraftFiles::open(path)?.whole()
    }

    /// Opens files that lie elsewhere, as [`DraftFiles::from_storage`] does.
    ///
    /// # Errors
    ///
    /// Those of [`ModelFiles::open`].
    pub fn from_storage(name: &str, storage: &dyn Storage) -> Result<ModelFiles> {
        DraftFiles::from_storage(name, storage)?.whole()
    }

    /// Opens a GGUF file whose bytes are at hand, as [`DraftFiles::from_gguf`] does.
    ///
    /// # Errors
    ///
    /// Those of [`ModelFiles::open`].
    pub fn from_gguf(name: &str, bytes: Bytes) -> Result<ModelFiles> {
        DraftFiles::from_gguf(name, bytes)?.whole()
    }

    /// The model's name: the repository's, or the folder's or file's.
    pub fn name(&self) -> &str {
        &self.text.model_name
    }
}

const NO_TOKENIZER: &str = "the folder holds no tokenizer.json, so that it serves as a draft beside its target alone; where \
                            there is a tokenizer.model, `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)` \
                            of the Python package transformers writes it";

fn open_gguf(path: &Path, name: String, gguf: Gguf) -> Result<DraftFiles> {
    let config = gguf.config()?;
    let tokenizer = Tokenizer::new(path, gguf.tokenizer()?)?.for_vocab(config.vocab_size)?;
    let ids = gguf.special_tokens()?;
    let named = [("bos_token", ids.begin), ("eos_token", ids.end)];
    let special_tokens =
        named.into_iter().filter_map(|(name, id)| Some((name.to_owned(), tokenizer.token(id?)?))).collect();
    let text = ChatTokenizer {
        model_name: gguf.model_name().map_or(name, str::to_owned),
        tokenizer,
        template: gguf.chat_template()?.filter(|source| !source.is_empty()).map(str::to_owned),
        tool_template: gguf.named_chat_template(TOOL_USE)?.map(str::to_owned),
        special_tokens,
        stop_tokens: ids.stop,
        suggested: gguf.suggested()?,
        grammars: Grammars::default(),
    };
    Ok(DraftFiles {
        path: path.to_owned(),
        name: text.model_name.clone(),
        config,
        checkpoint: Box::new(gguf),
        text: Some(text),
    })
}

fn open_folder(folder: &Path, name: String, storage: &dyn Storage) -> Result<DraftFiles> {
    folder::refuse_adapter(folder, storage)?;
    let config_path = storage.path("config.json");
    let Some(config_json) = json::read_if_present(storage, "config.json")? else {
        return Err(Error::NoModel {
            name: folder.display().to_string(),
            reason: "the folder holds no config.json; a model folder holds config.json, tokenizer.json, *.safetensors"
                .to_owned(),
        });
    };
    let mut config = hugging_face::parse_config(&config_path, &config_json)?;
    let checkpoint = tensors_of(folder, storage, &config)?;
    config.tied_head = config.tied_head && !has_own_head(&config, &*checkpoint)?;
    let text = match storage.has("tokenizer.json") {
        true => Some(text_of(storage, name.clone(), &config, &Object::of(&config_path, &config_json)?)?),
        false => None,
    };
    Ok(DraftFiles { path: folder.to_owned(), name, config, checkpoint, text })
}

/// The tensors of a folder, those of a PARD-2 draft's second file among them.
fn tensors_of(folder: &Path, storage: &dyn Storage, config: &Config) -> Result<Box<dyn Checkpoint>> {
    let tensors = Box::new(Safetensors::from_storage(folder, storage)?);
    let is_pard2 = config.target_layers.as_ref().is_some_and(|target| target.form == StateForm::Pard2);
    if !is_pard2 || !storage.has(PROJECTION_FILE) {
        return Ok(tensors);
    }
    let path = storage.path(PROJECTION_FILE);
    let bytes = storage.open(PROJECTION_FILE).map_err(|source| Error::Io { path: path.clone(), source })?;
    Ok(Box::new(Joined::new(tensors, TorchFile::from_bytes(&path, bytes)?)))
}

/// The tokenizer of a folder that holds one, and what its files say of conversations.
fn text_of(storage: &dyn Storage, model_name: String, config: &Config, config_json: &Object) -> Result<ChatTokenizer> {
    let open = |name: &str| storage.open(name).map_err(|source| Error::Io { path: storage.path(name), source });
    let tokenizer_config_path = storage.path("tokenizer_config.json");
    let tokenizer_config = json::read_if_present(storage, "tokenizer_config.json")?;
    let tokenizer_config =
        tokenizer_config.as_ref().map(|json| Object::of(&tokenizer_config_path, json)).transpose()?;
    let SpecialTokens { names: special_tokens, listed, added } =
        special_tokens::read(storage, tokenizer_config.as_ref())?;
    let (tokenizer_path, bytes) = (storage.path("tokenizer.json"), open("tokenizer.json")?);
    let tokenizer = Tokenizer::with_added(&tokenizer_path, contents::without_mark(&bytes), listed, added)
        .map_err(|error| contents::explained(&tokenizer_path, &bytes, error))?
        .for_vocab(config.vocab_size)?;
    let template = template(storage, tokenizer_config.as_ref())?;
    let tool_template = tool_template(storage, tokenizer_config.as_ref())?;

    let generation_path = storage.path("generation_config.json");
    let generation = json::read_if_present(storage, "generation_config.json")?;
    let generation = generation.map(|json| Generation::read(&generation_path, &json)).transpose()?;
    let Generation { mut stop_tokens, suggested } = generation.unwrap_or_default();
    if stop_tokens.is_empty() {
        stop_tokens = config_json.tokens("eos_token_id")?;
    }
    stop_tokens.extend(special_tokens.get("eos_token").and_then(|token| tokenizer.id(token)));
    // Files of Llama 3 name but one of two. The end of a turn is the one that the template writes.
    let ends = END_TEXTS.iter().filter(|end| template.as_ref().is_some_and(|template| template.contains(**end)));
    stop_tokens.extend(ends.filter_map(|end| tokenizer.id(end)).filter(|&id| tokenizer.is_special(id)));
    stop_tokens.sort_unstable();
    stop_tokens.dedup();

    Ok(ChatTokenizer {
        model_name,
        tokenizer,
        template,
        tool_template,
        special_tokens,
        stop_tokens,
        suggested,
        grammars: Grammars::default(),
    })
}

/// Returns `true` if a model whose head is said to be its embedding has a head that is not: `transformers` uses that one.
fn has_own_head(config: &Config, checkpoint: &dyn Checkpoint) -> Result<bool> {
    const ROWS: usize = 64;
    let [embedding, head] = ["model.embed_tokens.weight", "lm_head.weight"];
    let (rows, columns) = (config.vocab_size, config.hidden_size);
    for name in [embedding, head] {
        if checkpoint.find(name).is_none_or(|info| info.shape != [rows, columns]) {
            return Ok(false);
        }
    }
    let [mut one, mut other] = [(); 2].map(|()| vec![0.0; ROWS * columns]);
    for first in (0..rows).step_by(ROWS) {
        let range = first..rows.min(first + ROWS);
        let len = range.len() * columns;
        checkpoint.read_rows(embedding, range.clone(), &mut one[..len])?;
        checkpoint.read_rows(head, range, &mut other[..len])?;
        if one[..len] != other[..len] {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The chat template of a folder, wherever it is kept. An empty one is none.
fn template(storage: &dyn Storage, tokenizer_config: Option<&Object>) -> Result<Option<String>> {
    const FILE: &str = "chat_template.jinja";
    let path = storage.path(FILE);
    let source = match storage.open(FILE) {
        Ok(bytes) => Some(template_text(&path, &bytes)?),
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(Error::Io { path, source }),
        Err(_) => tokenizer_config.map(template_source).transpose()?.flatten(),
    };
    if source.is_some() {
        return Ok(source.filter(|source| !source.is_empty()));
    }
    // Models that see pictures, too, keep it with their processor.
    let path = storage.path("chat_template.json");
    match json::read_if_present(storage, "chat_template.json")? {
        Some(json) => template_source(&Object::of(&path, &json)?),
        None => Ok(None),
    }
}

/// The name of the template for conversations with tools.
const TOOL_USE: &str = "tool_use";

/// The template for conversations with tools, where the folder has one of its own for these.
fn tool_template(storage: &dyn Storage, tokenizer_config: Option<&Object>) -> Result<Option<String>> {
    let file = format!("additional_chat_templates/{TOOL_USE}.jinja");
    let path = storage.path(&file);
    match storage.open(&file) {
        Ok(bytes) => return template_text(&path, &bytes).map(Some),
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(Error::Io { path, source }),
        Err(_) => {}
    }
    let source = match tokenizer_config.and_then(|config| config.get("chat_template")) {
        Some(Value::Object(named)) => named.get(TOOL_USE),
        Some(Value::Array(named)) => {
            let of_tools = named.iter().find(|template| template.get("name").is_some_and(|name| name == TOOL_USE));
            of_tools.and_then(|template| template.get("template"))
        }
        _ => None,
    };
    Ok(source.and_then(Value::as_str).map(str::to_owned))
}

fn template_text(path: &Path, bytes: &[u8]) -> Result<String> {
    String::from_utf8(contents::without_mark(bytes).to_vec()).map_err(|error| {
        let reason = format!("it is not UTF-8: {}", error.utf8_error());
        contents::explained(path, bytes, Error::Damaged { path: path.to_owned(), reason })
    })
}

/// The template of a `tokenizer_config.json`: a string, or a list of named ones of which `default` counts.
fn template_source(tokenizer_config: &Object) -> Result<Option<String>> {
    const KEY: &str = "chat_template";
    let named = match tokenizer_config.get(KEY) {
        None => return Ok(None),
        Some(Value::String(source)) => return Ok(Some(source.clone())),
        Some(Value::Object(named)) => {
            let default = named.get("default").and_then(Value::as_str);
            return Ok(Some(default.ok_or_else(|| tokenizer_config.fault(KEY, "names no `default`"))?.to_owned()));
        }
        Some(Value::Array(named)) => named,
        Some(_) => return Err(tokenizer_config.fault(KEY, "is neither a string nor a list of named templates")),
    };
    let default = named.iter().find(|template| template.get("name").is_some_and(|name| name == "default"));
    let chosen = default.or(named.first().filter(|_| named.len() == 1));
    match chosen.and_then(|template| template.get("template")).and_then(Value::as_str) {
        Some(source) => Ok(Some(source.to_owned())),
        None => Err(tokenizer_config.fault(KEY, "is a list without a template named `default`")),
    }
}

/// `owner/name` for a folder of the hub's cache (`models--owner--name/snapshots/revision`), else the folder's own name.
fn folder_name(folder: &Path) -> String {
    let name_of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"));
    let repository = snapshots
        .and_then(Path::parent)
        .and_then(name_of)
        .and_then(|name| name.strip_prefix("models--").map(|name| name.replacen("--", "/", 1)));
    let whole = || folder.canonicalize().ok().as_deref().and_then(name_of);
    repository.or_else(|| name_of(folder)).or_else(whole).unwrap_or_else(|| folder.display().to_string())
}
