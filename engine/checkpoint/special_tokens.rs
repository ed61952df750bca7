//! Special and added tokens of a Hugging Face folder, which stand in other files than `tokenizer.json`, too: all that
//! `transformers` adds to the tokenizer, and the names that templates know them by.

use std::collections::BTreeMap;

use serde_json::Value;
use tokenizers::AddedToken;

use super::json::{self, Object};
use super::storage::Storage;
use crate::error::Result;

/// The tokens with a role.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What the files beside `tokenizer.json` say of tokens.
#[derive(Default)]
pub(super) struct SpecialTokens {
    /// The variables of templates: `bos_token` and the like.
    pub names: BTreeMap<String, String>,
    /// Tokens that are single ones wherever a text has them, as they are listed with the blanks that they take along, in the
    /// order of their ids. What `tokenizer.json` says of them does not count.
    pub listed: Vec<AddedToken>,
    /// More of them, if `tokenizer.json` has them not.
    pub added: Vec<AddedToken>,
}

/// Reads `tokenizer_config.json`, and the files that it took the place of where it does not list all tokens.
pub(super) fn read(storage: &dyn Storage, tokenizer_config: Option<&Object>) -> Result<SpecialTokens> {
    let mut tokens = SpecialTokens::default();
    let listed = tokenizer_config.map(|config| config.object("added_tokens_decoder", "added_tokens_decoder."));
    let (mut special, mut later) = (Vec::new(), Vec::new());
    if let Some(listed) = listed.transpose()?.flatten() {
        tokens.listed = by_id(listed.keys().map(|id| {
            let token = listed.get(id).and_then(|token| added(token, false));
            Ok((id.parse::<u32>().ok(), token.ok_or_else(|| listed.fault(id, "is no token with a `content`"))?))
        }))?;
    } else {
        let (map_path, ids_path) = (storage.path("special_tokens_map.json"), storage.path("added_tokens.json"));
        if let Some(json) = json::read_if_present(storage, "special_tokens_map.json")? {
            tokens.read_roles(&Object::of(&map_path, &json)?, &mut special, &mut later)?;
        }
        if let Some(json) = json::read_if_present(storage, "added_tokens.json")? {
            let ids = Object::of(&ids_path, &json)?;
            tokens.added = by_id(ids.keys().map(|text| Ok((ids.token(text)?, AddedToken::from(text, false)))))?;
        }
    }
    if let Some(config) = tokenizer_config {
        tokens.read_roles(config, &mut special, &mut later)?;
    }
    for token in special.into_iter().chain(later) {
        match tokens.listed.iter_mut().chain(&mut tokens.added).find(|known| known.content == token.content) {
            Some(known) => known.special = true,
            None => tokens.added.push(token),
        }
    }
    Ok(tokens)
}

impl SpecialTokens {
    /// Reads the tokens with a role, into `special`, and those without one, into `later`. A role that is known stays so.
    fn read_roles(&mut self, file: &Object, special: &mut Vec<AddedToken>, later: &mut Vec<AddedToken>) -> Result<()> {
        for name in ROLES.into_iter().filter(|&name| file.get(name).is_some()) {
            let token = file.get(name).and_then(|token| added(token, true));
            let token = token.ok_or_else(|| file.fault(name, "is neither a string nor has a `content`"))?;
            if !self.names.contains_key(name) {
                self.names.insert(name.to_owned(), token.content.clone());
                special.push(token);
            }
        }
        for name in ["additional_special_tokens", "extra_special_tokens"] {
            let wrong = || file.fault(name, "is neither a list of tokens nor an object of them");
            match file.get(name) {
                None => {}
                Some(Value::Array(list)) => {
                    for token in list {
                        later.push(added(token, true).ok_or_else(wrong)?);
                    }
                }
                Some(Value::Object(named)) => {
                    for (name, token) in named {
                        let token = added(token, true).ok_or_else(wrong)?;
                        self.names.entry(name.clone()).or_insert_with(|| token.content.clone());
                        later.push(token);
                    }
                }
                Some(_) => return Err(wrong()),
            }
        }
        Ok(())
    }
}

/// Tokens in the order of their ids, those without one last.
fn by_id(tokens: impl Iterator<Item = Result<(Option<u32>, AddedToken)>>) -> Result<Vec<AddedToken>> {
    let mut tokens = tokens.collect::<Result<Vec<_>>>()?;
    tokens.sort_by_key(|(id, _)| id.unwrap_or(u32::MAX));
    Ok(tokens.into_iter().map(|(_, token)| token).collect())
}

/// A token, given as a text or as an object with its `content` and the blanks that it takes along.
fn added(token: &Value, is_special: bool) -> Option<AddedToken> {
    let flag = |name: &str| token.get(name).and_then(Value::as_bool);
    match token {
        Value::String(text) => Some(AddedToken::from(text.as_str(), is_special)),
        token => {
            let special = flag("special").unwrap_or(false) || is_special;
            let content = token.get("content")?.as_str()?;
            let token = AddedToken::from(content, special)
                .lstrip(flag("lstrip").unwrap_or(false))
                .rstrip(flag("rstrip").unwrap_or(false))
                .single_word(flag("single_word").unwrap_or(false))
                .normalized(flag("normalized").unwrap_or(!special));
            Some(token)
        }
    }
}
