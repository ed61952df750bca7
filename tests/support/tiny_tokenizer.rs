//! A byte-level BPE tokenizer small enough to read: 256 bytes, a few merges, four special tokens, a ChatML template.

use std::path::Path;

use serde_json::json;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

/// Pairs in order of priority; `Ġ` is byte-level BPE's space.
const MERGES: [(&str, &str); 16] = [
    ("t", "h"),
    ("th", "e"),
    ("i", "n"),
    ("a", "n"),
    ("e", "r"),
    ("o", "n"),
    ("Ġ", "t"),
    ("Ġ", "a"),
    ("h", "e"),
    ("Ġt", "he"),
    ("an", "d"),
    ("Ġ", "and"),
    ("in", "g"),
    ("o", "u"),
    ("r", "e"),
    ("Ġ", "w"),
];

/// The special tokens; their ids follow the bytes and the merges.
pub const SPECIAL: [&str; 4] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"];

/// Ids of the tokenizer, special tokens included; a model's vocabulary may be larger (padding).
pub const TOKENS: usize = 256 + MERGES.len() + SPECIAL.len();

/// The id of `SPECIAL[index]`.
pub const fn special_id(index: usize) -> u32 {
    (256 + MERGES.len() + index) as u32
}

/// As Qwen writes it, without tools.
pub const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' \
     + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The tokenizer itself.
pub fn build() -> Tokenizer {
    let mut bytes: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    bytes.sort_unstable();
    let single = bytes.into_iter().map(String::from);
    let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
    let vocabulary = single.chain(merged).zip(0..).collect();
    let merges = MERGES.iter().map(|&(left, right)| (left.to_owned(), right.to_owned())).collect();
    let mut tokenizer = Tokenizer::new(BPE::new(vocabulary, merges));
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    tokenizer
        .add_special_tokens(SPECIAL.map(|token| AddedToken::from(token, true)))
        .expect("special tokens of a new tokenizer");
    tokenizer
}

/// Marks of a block of thoughts, `THINK[index]` being the token `TOKENS + index` of a tokenizer that has them.
pub const THINK: [&str; 2] = ["<think>", "</think>"];

/// As Qwen3 writes it, but that earlier thoughts stay, and that `opens` opens a block in the prompt.
const THINKING_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
     {% if message.reasoning_content %}{{ '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}{% endif %}\
     {{ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
     {% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}\
     {% elif opens %}{{ '<think>\n' }}{% endif %}{% endif %}";

/// Makes the model in `folder` one that may think first.
pub fn add_thoughts(folder: &Path) {
    let mut tokenizer = build();
    tokenizer.add_tokens(THINK.map(|token| AddedToken::from(token, false))).expect("tokens of a new tokenizer");
    tokenizer.save(folder.join("tokenizer.json"), true).expect("writing tokenizer.json");
    let path = folder.join("tokenizer_config.json");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config["chat_template"] = THINKING_TEMPLATE.into();
    super::tiny_model::write_json(&path, &config);
}

/// Writes `tokenizer.json`, `tokenizer_config.json` and `generation_config.json` to `folder`.
pub fn write(folder: &Path) {
    build().save(folder.join("tokenizer.json"), true).expect("writing tokenizer.json");
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": false,
        "bos_token": null,
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[3],
        "clean_up_tokenization_spaces": false,
        "model_max_length": 512,
        "chat_template": CHAT_TEMPLATE,
    });
    super::tiny_model::write_json(&folder.join("tokenizer_config.json"), &config);
    let generation = json!({
        "bos_token_id": special_id(0),
        "eos_token_id": [special_id(2), special_id(0)],
        "pad_token_id": special_id(3),
    });
    super::tiny_model::write_json(&folder.join("generation_config.json"), &generation);
}

#[test]
fn any_text_survives_and_special_tokens_are_single_ids() {
    let tokenizer = build();
    assert_eq!(tokenizer.get_vocab_size(true), TOKENS);
    let text = "the other thing and naïve 日本 🦀\n\tweird\u{0}";
    let ids = tokenizer.encode(text, false).expect("encoding").get_ids().to_vec();
    assert!(ids.len() < text.len(), "no merge applied: {ids:?}");
    assert_eq!(tokenizer.decode(&ids, false).expect("decoding"), text);
    for (index, token) in SPECIAL.iter().enumerate() {
        let ids = tokenizer.encode(*token, false).expect("encoding").get_ids().to_vec();
        assert_eq!(ids, [special_id(index)], "{token}");
    }
}
