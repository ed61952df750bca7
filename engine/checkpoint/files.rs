//! A model as it lies on the disk, whatever its format: hyper-parameters, tensors, tokenizer, chat template.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Checkpoint;
use super::config::{Config, StateForm};
use super::gguf::Gguf;
use super::gguf::split::PartName;
use super::gguf_files;
use super::hugging_face::{self, PROJECTION_FILE};
use super::joined::Joined;
use super::json::{self, Object};
use super::lora::{self, ADAPTER_CONFIG};
use super::safetensors::Safetensors;
use super::storage::{Bytes, Folder, Storage};
use super::torch_file::TorchFile;
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
            return open_folder(path, folder_name(path), &Folder(path));
        }
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
        let io = |path: PathBuf| move |source| Error::Io { path, source };
        let names = storage.names().map_err(io(path.to_owned()))?;
        match gguf_files::models(names.into_iter().map(|name| (name, None))).as_slice() {
            [model] if !storage.has("config.json") => {
                let file = storage.path(model.file());
                let bytes = storage.open(model.file()).map_err(io(file.clone()))?;
                let gguf = Gguf::with_parts(&file, bytes, |part| storage.open(part))?;
                open_gguf(path, name.to_owned(), gguf)
            }
            _ => open_folder(path, name.to_owned(), storage),
        }
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
        template: gguf.chat_template().map(str::to_owned),
        special_tokens,
        stop_tokens: ids.stop,
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
    let config_path = storage.path("config.json");
    let Some(config_json) = json::read_if_present(storage, "config.json")? else {
        if let Some(adapter) = json::read_if_present(storage, ADAPTER_CONFIG)? {
            return Err(Error::NoModel { name: folder.display().to_string(), reason: lora::describe(Some(&adapter)) });
        }
        return Err(Error::NoModel {
            name: folder.display().to_string(),
            reason: "the folder holds no config.json; a model folder holds config.json, tokenizer.json, *.safetensors"
                .to_owned(),
        });
    };
    let config = hugging_face::parse_config(&config_path, &config_json)?;
    let checkpoint = tensors_of(folder, storage, &config)?;
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
    let tokenizer = Tokenizer::from_bytes(&storage.path("tokenizer.json"), &open("tokenizer.json")?)?;
    let tokenizer = tokenizer.for_vocab(config.vocab_size)?;
    let tokenizer_config_path = storage.path("tokenizer_config.json");
    let tokenizer_config = json::read_if_present(storage, "tokenizer_config.json")?;
    let special_tokens = match &tokenizer_config {
        Some(json) => special_tokens(&Object::of(&tokenizer_config_path, json)?)?,
        None => BTreeMap::new(),
    };
    let template = match (open("chat_template.jinja"), &tokenizer_config) {
        (Ok(source), _) => Some(String::from_utf8(source.to_vec()).map_err(|error| Error::Damaged {
            path: storage.path("chat_template.jinja"),
            reason: format!("it is not UTF-8: {}", error.utf8_error()),
        })?),
        (Err(Error::Io { source, path }), _) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::Io { path, source });
        }
        (_, Some(json)) => template_source(&Object::of(&tokenizer_config_path, json)?)?,
        (_, None) => None,
    };

    let generation_path = storage.path("generation_config.json");
    let mut stop_tokens = match json::read_if_present(storage, "generation_config.json")? {
        Some(json) => Object::of(&generation_path, &json)?.tokens("eos_token_id")?,
        None => Vec::new(),
    };
    if stop_tokens.is_empty() {
        stop_tokens = config_json.tokens("eos_token_id")?;
    }
    stop_tokens.extend(special_tokens.get("eos_token").and_then(|token| tokenizer.id(token)));
    stop_tokens.sort_unstable();
    stop_tokens.dedup();

    let grammars = Grammars::default();
    Ok(ChatTokenizer { model_name, tokenizer, template, special_tokens, stop_tokens, grammars })
}

/// The special tokens a template may write. Each is a string, or an object with its `content`.
fn special_tokens(tokenizer_config: &Object) -> Result<BTreeMap<String, String>> {
    let mut tokens = BTreeMap::new();
    for name in ["bos_token", "eos_token", "pad_token", "unk_token"] {
        let token = match tokenizer_config.get(name) {
            None => continue,
            Some(Value::String(token)) => Some(token.as_str()),
            Some(token) => token.get("content").and_then(Value::as_str),
        };
        let token = token.ok_or_else(|| tokenizer_config.fault(name, "is neither a string nor has a `content`"))?;
        tokens.insert(name.to_owned(), token.to_owned());
    }
    Ok(tokens)
}

/// The template of a `tokenizer_config.json`: a string, or a list of named ones of which `default` counts.
fn template_source(tokenizer_config: &Object) -> Result<Option<String>> {
    const KEY: &str = "chat_template";
    let named = match tokenizer_config.get(KEY) {
        None => return Ok(None),
        Some(Value::String(source)) => return Ok(Some(source.clone())),
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
