//! `generation_config.json`: the tokens that end an answer, and how its publisher wants tokens to be chosen.

use std::path::Path;

use serde_json::Value;

use super::json::Object;
use crate::error::Result;

/// Contents of the file, as far as they matter here.
#[derive(Default)]
pub(super) struct Generation {
    /// The tokens that end an answer.
    pub stop_tokens: Vec<u32>,
    /// As in [`crate::text::ChatTokenizer::suggested`].
    pub suggested: Vec<String>,
}

/// Settings for tokens that are drawn, and the value by which each is without effect.
const DRAWN: [(&str, f64); 5] =
    [("temperature", 1.0), ("top_k", 0.0), ("top_p", 1.0), ("min_p", 0.0), ("typical_p", 1.0)];
/// Those for all tokens.
const ALL: [(&str, f64); 14] = [
    ("repetition_penalty", 1.0),
    ("encoder_repetition_penalty", 1.0),
    ("no_repeat_ngram_size", 0.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("num_beams", 1.0),
    ("guidance_scale", 1.0),
    ("penalty_alpha", 0.0),
    ("bad_words_ids", 0.0),
    ("suppress_tokens", 0.0),
    ("begin_suppress_tokens", 0.0),
    ("sequence_bias", 0.0),
    ("forced_bos_token_id", -1.0),
    ("forced_eos_token_id", -1.0),
];

impl Generation {
    /// Reads the file at `path`, whose contents are `json`.
    pub fn read(path: &Path, json: &Value) -> Result<Generation> {
        let keys = Object::of(path, json)?;
        let draws = keys.flag("do_sample")?;
        let settings = DRAWN.into_iter().filter(|_| draws).chain(ALL);
        let mut suggested = Vec::new();
        for (key, usual) in settings {
            match keys.get(key) {
                None | Some(Value::Bool(false)) => {}
                Some(Value::Array(items)) if items.is_empty() => {}
                Some(value) if value.as_f64() == Some(usual) => {}
                Some(value) => suggested.push(format!("{key} {value}")),
            }
        }
        suggested.extend(keys.get("stop_strings").map(|value| format!("stop_strings {value}")));
        Ok(Generation { stop_tokens: keys.tokens("eos_token_id")?, suggested })
    }
}
