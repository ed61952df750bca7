//! Tokenizers from metadata, against known ids, against the `tokenizer.json` of real models, and, for SentencePiece,
//! against llama.cpp's algorithm.

use std::collections::HashMap;

use pard::checkpoint::gguf::Gguf;
use pard::{Error, Result};
use proptest::prelude::*;
use serde_json::Value as Json;
use tokenizers::Tokenizer;

use super::open_good;
use super::writer::{Value, Writer, byte_tokens, small_llama, with_tokens};
use crate::text::tokenizer_folder;

/// Texts on which tokenizers tend to differ.
/// Texts of many kinds.
pub fn texts() -> Vec<String> {
    serde_json::from_str(include_str!("../data/texts.json")).expect("a list of texts")
}

pub fn ids(tokenizer: &Tokenizer, text: &str, add_begin: bool) -> Vec<u32> {
    tokenizer.encode(text, add_begin).expect("text is encoded").get_ids().to_vec()
}

fn tokenizer(writer: &Writer) -> Result<Tokenizer> {
    open_good(&writer.bytes()).1.tokenizer()
}

fn good_tokenizer(writer: &Writer) -> Tokenizer {
    tokenizer(writer).unwrap_or_else(|error| panic!("{error}"))
}

fn assert_fault(writer: &Writer, words: &[&str]) {
    match tokenizer(writer) {
        Err(Error::Tokenizer { reason, .. } | Error::Config { reason, .. }) => {
            for word in words {
                assert!(reason.contains(word), "{reason:?} lacks {word:?}");
            }
        }
        Err(other) => panic!("{words:?}: {other}"),
        Ok(_) => panic!("{words:?}: no fault"),
    }
}

#[test]
fn byte_pairs_are_merged_and_special_tokens_kept_whole() {
    let tokenizer = good_tokenizer(&small_llama());
    let byte = |byte: u8| u32::from(byte);
    let expected = [259, 260, byte(b'o'), byte(b'r'), byte(b'l'), byte(b'd')];
    assert_eq!(ids(&tokenizer, "hello world", true)[1..], expected[1..]);
    assert_eq!(ids(&tokenizer, "hello world", true), expected);
    assert_eq!(ids(&tokenizer, "<|im_start|>hell<think>", true), [262, 258, 264]);
    assert_eq!(ids(&tokenizer, "\n\u{e9}", true), [10, 0xC3, 0xA9]);
    assert_eq!(
        tokenizer.decode(&[262, 258, 264, 111, 0xC3, 0xA9], false).expect("text"),
        "<|im_start|>hell<think>o\u{e9}"
    );
    assert_eq!(tokenizer.decode(&[262, 258, 264, 263], true).expect("text"), "hell<think>");
    // Padding is no token, and its text is only text.
    assert_eq!(tokenizer.id_to_token(265), None);
    assert!(ids(&tokenizer, "[PAD265]", true).len() > 1);
}

#[test]
fn special_tokens_are_found() {
    let special = |writer: &Writer| open_good(&writer.bytes()).1.special_tokens();
    let read = special(&small_llama()).expect("tokens");
    assert_eq!((read.begin, read.end, read.add_begin), (Some(262), Some(263), false));
    assert_eq!(read.stop, [261, 263]);
    let named = small_llama().key("tokenizer.ggml.eot_token_id", 7).key("tokenizer.ggml.eom_token_id", 3);
    assert_eq!(special(&named).expect("tokens").stop, [3, 7, 261, 263]);
    assert!(special(&small_llama().key("tokenizer.ggml.eos_token_id", 266)).is_err());
    // Llama 3's files leave the flag out and mean it.
    let llama_3 = small_llama().key("tokenizer.ggml.pre", "llama-bpe");
    assert!(special(&llama_3).expect("tokens").add_begin);
    let said = llama_3.key("tokenizer.ggml.add_bos_token", false);
    assert!(!special(&said).expect("tokens").add_begin);
    let nothing = said.key("tokenizer.ggml.add_bos_token", true).without("tokenizer.ggml.bos_token_id");
    assert!(special(&nothing).expect_err("a fault").to_string().contains("bos_token_id"));
}

#[test]
fn the_begin_token_comes_first_where_it_is_wanted() {
    let tokenizer = good_tokenizer(&small_llama().key("tokenizer.ggml.add_bos_token", true));
    assert_eq!(ids(&tokenizer, "hell", true), [262, 258]);
    assert_eq!(ids(&tokenizer, "hell", false), [258]);
}

#[test]
fn the_end_token_comes_last_where_it_is_wanted() {
    let ended = small_llama().key("tokenizer.ggml.add_eos_token", true);
    assert_eq!(ids(&good_tokenizer(&ended), "hell", true), [258, 263]);
    assert_eq!(ids(&good_tokenizer(&ended), "hell", false), [258]);
    let both = small_llama().key("tokenizer.ggml.add_eos_token", true).key("tokenizer.ggml.add_bos_token", true);
    assert_eq!(ids(&good_tokenizer(&both), "hell", true), [262, 258, 263]);
    assert_fault(&ended.without("tokenizer.ggml.eos_token_id"), &["add_eos_token", "eos_token_id is missing"]);
}

#[test]
fn chat_templates_are_found() {
    let writer = small_llama().key("tokenizer.chat_template.tool_use", "{{ tools }}");
    let (_file, gguf) = open_good(&writer.bytes());
    assert_eq!(gguf.chat_template().expect("a text"), Some("{{ messages }}"));
    assert_eq!(gguf.named_chat_template("tool_use").expect("a text"), Some("{{ tools }}"));
    assert_eq!(gguf.named_chat_template("rag").expect("none"), None);
    let (_file, wrong) = open_good(&writer.key("tokenizer.chat_template", 7).bytes());
    let error = wrong.chat_template().expect_err("no text").to_string();
    assert!(error.contains("tokenizer.chat_template") && error.contains("a string belongs"), "{error}");
}

#[test]
fn faults_are_named() {
    assert_fault(&small_llama().without("tokenizer.ggml.model"), &["holds none"]);
    assert_fault(&small_llama().key("tokenizer.ggml.model", "t5"), &["\"t5\"", "gpt2, llama", "tokenizer.json"]);
    assert_fault(&small_llama().key("tokenizer.ggml.pre", "viking"), &["\"viking\"", "llama-bpe", "tokenizer.json"]);
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.merges"] {
        assert_fault(&small_llama().without(key), &[key, "missing"]);
        assert_fault(&small_llama().key(key, Value::I32s(vec![1])), &["strings"]);
    }
    assert_fault(&small_llama().key("tokenizer.ggml.token_type", Value::I32s(vec![1])), &["1 entries for 266 tokens"]);
    let merges = |merge: &str| small_llama().key("tokenizer.ggml.merges", Value::Texts(vec![merge.to_owned()]));
    assert_fault(&merges(""), &["merge 0", "not two tokens"]);
    assert_fault(&merges("hello"), &["merge 0", "not two tokens"]);
    assert_fault(&merges("he o"), &["merge 0", "\"heo\"", "no token"]);
    assert_fault(&merges("zzz o"), &["merge 0", "\"zzz\"", "no token"]);
    let (mut tokens, types, merges) = byte_tokens();
    tokens[5] = "A".to_owned();
    assert_fault(&with_tokens(small_llama(), (tokens, types, merges)), &["tokens 5 and 65", "\"A\""]);
}

#[test]
fn every_known_split_builds_and_loses_nothing() {
    for name in ["default", "gpt-2", "smollm", "smaug-bpe", "deepseek-coder", "llama-bpe", "qwen2", "tekken"] {
        let tokenizer = good_tokenizer(&small_llama().key("tokenizer.ggml.pre", name));
        for text in &texts() {
            if name != "qwen2" || !text.contains("decomposed") {
                let decoded = tokenizer.decode(&ids(&tokenizer, text, false), false).expect("text");
                assert_eq!(&decoded, text, "{name}");
            }
        }
    }
}

/// The vocabulary of a `tokenizer.json` as llama.cpp's converter writes it.
fn converted(json: &Json, pre: &str) -> Writer {
    let vocabulary = json["model"]["vocab"].as_object().expect("a vocabulary");
    let added = json["added_tokens"].as_array().expect("added tokens");
    let mut listed: Vec<(usize, &str, i32)> = Vec::new();
    listed.extend(vocabulary.iter().map(|(token, id)| (id.as_u64().expect("an id") as usize, token.as_str(), 1)));
    listed.extend(added.iter().map(|token| {
        let kind = if token["special"] == true { 3 } else { 4 };
        (token["id"].as_u64().expect("an id") as usize, token["content"].as_str().expect("a text"), kind)
    }));
    // As many models, padded to a round number.
    let len = (listed.iter().map(|(id, ..)| id + 1).max().unwrap_or(0)).next_multiple_of(64);
    let mut tokens: Vec<String> = (0..len).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![5; len];
    for (id, token, kind) in listed {
        tokens[id] = token.to_owned();
        types[id] = kind;
    }
    let merges = json["model"]["merges"].as_array().expect("merges").iter().map(|merge| match merge {
        Json::String(line) => line.clone(),
        pair => format!("{} {}", pair[0].as_str().expect("a token"), pair[1].as_str().expect("a token")),
    });
    let merges = merges.collect();
    let id = |text: &str| tokens.iter().position(|token| token == text).map(|id| id as u32);
    let begin = id("<|begin_of_text|>").or(id("<|endoftext|>")).expect("a begin token");
    let end = id("<|eot_id|>").or(id("<|im_end|>")).expect("an end token");
    with_tokens(Writer::default(), (tokens, types, merges))
        .key("tokenizer.ggml.pre", pre)
        .key("tokenizer.ggml.bos_token_id", begin)
        .key("tokenizer.ggml.eos_token_id", end)
}

#[test]
fn real_vocabularies_give_the_ids_of_their_tokenizer_json() {
    for (name, pre, stop) in
        [("llama3", "llama-bpe", &[128001, 128008, 128009][..]), ("qwen3", "qwen2", &[151643, 151645])]
    {
        let bytes = std::fs::read(tokenizer_folder(name).join("tokenizer.json")).expect("a file");
        let json: Json = serde_json::from_slice(&bytes).expect("JSON");
        let expected = Tokenizer::from_bytes(&bytes).expect("a tokenizer");
        let (_file, gguf) = open_good(&converted(&json, pre).bytes());
        assert_eq!(gguf.special_tokens().expect("tokens").stop, stop);
        assert_same(&gguf, &expected);
    }
}

/// Asserts that `gguf`'s tokenizer and `expected` agree on everything there is to read.
pub fn assert_same(gguf: &Gguf, expected: &Tokenizer) {
    let tokenizer = gguf.tokenizer().unwrap_or_else(|error| panic!("{error}"));
    for text in &texts() {
        for add_begin in [false, true] {
            let (got, wanted) = (ids(&tokenizer, text, add_begin), ids(expected, text, add_begin));
            assert_eq!(got, wanted, "{:.200?}", text);
            let (got, wanted) = (tokenizer.decode(&got, false), expected.decode(&wanted, false));
            assert_eq!(got.expect("text"), wanted.expect("text"));
        }
    }
    for (token, id) in expected.get_vocab(true) {
        assert_eq!(tokenizer.id_to_token(id), Some(token), "{id}");
    }
}

/// A SentencePiece vocabulary: unknown, begin, end, the bytes, and `pieces`, the better the earlier.
fn sentence_piece(pieces: &[String]) -> Writer {
    let mut tokens = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    let mut types = vec![2, 3, 3];
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    types.resize(tokens.len(), 6);
    let mut scores = vec![0.0; tokens.len()];
    for (rank, piece) in pieces.iter().enumerate() {
        tokens.push(piece.clone());
        types.push(1);
        scores.push(-(rank as f32));
    }
    Writer::default()
        .key("tokenizer.ggml.model", "llama")
        .key("tokenizer.ggml.tokens", Value::Texts(tokens))
        .key("tokenizer.ggml.token_type", Value::I32s(types))
        .key("tokenizer.ggml.scores", Value::F32s(scores))
}

fn pieces(list: &[&str]) -> Vec<String> {
    list.iter().map(|piece| (*piece).to_owned()).collect()
}

#[test]
fn sentence_piece_merges_by_score_and_falls_back_to_bytes() {
    // 259: ▁t, 260: he, 261: ▁the, then single characters.
    let list = pieces(&["▁t", "he", "▁the", "▁", "t", "h", "e"]);
    let tokenizer = good_tokenizer(&sentence_piece(&list));
    assert_eq!(ids(&tokenizer, "the", false), [261]);
    assert_eq!(ids(&tokenizer, "the", true), [1, 261]);
    assert_eq!(ids(&tokenizer, "the the", true), [1, 261, 261]);
    assert_eq!(ids(&tokenizer, "the\u{e9}", false), [261, 3 + 0xC3, 3 + 0xA9]);
    assert_eq!(ids(&tokenizer, "<s>the</s>the", false), [1, 261, 2, 261]);
    assert_eq!(tokenizer.decode(&[261, 261, 3 + 0xC3, 3 + 0xA9], true).expect("text"), "the the\u{e9}");
    // The text of a byte token is text.
    assert_eq!(ids(&tokenizer, "<0x0A>", false).len(), 7);

    let plain = good_tokenizer(&sentence_piece(&list).key("tokenizer.ggml.add_space_prefix", false));
    assert_eq!(ids(&plain, "the the", false), [263, 260, 261]);
    assert_eq!(plain.decode(&[263, 260, 261], true).expect("text"), "the the");
}

#[test]
fn sentence_piece_faults_are_named() {
    let list = pieces(&["▁", "a"]);
    assert_fault(&sentence_piece(&list).without("tokenizer.ggml.scores"), &["scores", "missing"]);
    assert_fault(&sentence_piece(&list).key("tokenizer.ggml.scores", Value::F32s(vec![0.0])), &["1 entries for 261"]);
    assert_fault(&sentence_piece(&["a".repeat(10_000)]), &["10000 bytes long"]);
    let mut bare = sentence_piece(&list).key("tokenizer.ggml.tokens", Value::Texts(list.clone()));
    bare = bare.key("tokenizer.ggml.token_type", Value::I32s(vec![1, 1]));
    bare = bare.key("tokenizer.ggml.scores", Value::F32s(vec![0.0, 0.0]));
    assert_fault(&bare, &["neither an unknown token nor one for each byte"]);
}

/// llama.cpp's algorithm: merge the best-scored pair, the leftmost of several, until none is left.
fn merged_by_score(text: &str, ranks: &HashMap<&str, usize>) -> Vec<String> {
    let mut symbols: Vec<String> = text.chars().map(String::from).collect();
    loop {
        let pairs = symbols.windows(2).enumerate();
        let best = pairs.filter_map(|(at, pair)| Some((*ranks.get(pair.concat().as_str())?, at))).min();
        let Some((_, at)) = best else { return symbols };
        let right = symbols.remove(at + 1);
        symbols[at].push_str(&right);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sentence_piece_splits_as_llama_cpp_does(
        joins in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..20),
        texts in prop::collection::vec("[abc ]{0,20}", 1..10),
    ) {
        // Grown as a trainer grows them: every piece joins two there are already.
        let mut list = pieces(&["a", "b", "c", "▁"]);
        for (left, right) in joins {
            let piece = format!("{}{}", left.get(&list), right.get(&list));
            if !list.contains(&piece) && piece.len() < 50 {
                list.push(piece);
            }
        }
        // A trainer's scores: joined pieces by age, characters last.
        list.rotate_left(4);
        let tokenizer = good_tokenizer(&sentence_piece(&list));
        let ranks = list.iter().enumerate().map(|(rank, piece)| (piece.as_str(), rank)).collect();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let expected = merged_by_score(&format!("▁{}", text.replace(' ', "▁")), &ranks);
            let got = tokenizer.encode(text.as_str(), false).expect("text is encoded");
            prop_assert_eq!(got.get_tokens(), &expected[..]);
        }
    }
}
