//! Text to tokens and back: encoding, streaming, stop strings, chat templates.

use std::path::{Path, PathBuf};

use pard::Error;
use pard::decoding::Draft;
use pard::text::{ChatTokenizer, Conversation, Message, Rendering, Special, TextStream, Tokenizer};
use proptest::prelude::*;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::decoders::wordpiece::WordPiece;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::Replace;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, DecoderWrapper as Decoder};

use crate::support::tiny_tokenizer::{self, SPECIAL, special_id};

fn wrap(tokenizer: tokenizers::Tokenizer) -> Tokenizer {
    Tokenizer::new(Path::new("tokenizer.json"), tokenizer).expect("a tokenizer")
}

fn tiny() -> Tokenizer {
    wrap(tiny_tokenizer::build())
}

/// Llama 2's form of vocabulary, without merges: `▁` for a space, bytes for what has no token.
fn sentence_piece(decoder: Decoder) -> tokenizers::Tokenizer {
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let letters = ["▁", "a", "b", "c", "▁the", "▁a", "▁▁"].map(str::to_owned);
    let tokens = std::iter::once("<unk>".to_owned()).chain(bytes).chain(letters);
    let mut model = BPE::new(tokens.zip(0..).collect(), vec![]);
    model.byte_fallback = true;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_decoder(Some(decoder));
    tokenizer
}

fn llama2_decoder() -> Decoder {
    Decoder::Sequence(Sequence::new(vec![
        DecoderWrapper::Replace(Replace::new("▁", " ").expect("a pattern")),
        DecoderWrapper::ByteFallback(ByteFallback::new()),
        DecoderWrapper::Fuse(Fuse::new()),
        DecoderWrapper::Strip(Strip::new(' ', 1, 0)),
    ]))
}

/// Pieces of the stream, token by token, and their text.
fn streamed(mut stream: TextStream, tokens: &[u32]) -> (Vec<String>, String) {
    let mut pieces: Vec<String> = tokens.iter().filter_map(|&token| stream.push(token)).collect();
    pieces.extend(stream.flush());
    let text = pieces.concat();
    (pieces, text)
}

#[test]
fn a_rendered_prompt_gets_no_second_begin_token_and_a_plain_text_gets_one() {
    let mut inner = tiny_tokenizer::build();
    let begin = special_id(0);
    let processor = TemplateProcessing::builder()
        .try_single("<|endoftext|> $A")
        .expect("a template")
        .special_tokens(vec![(SPECIAL[0], begin)])
        .build()
        .expect("a processor");
    inner.with_post_processor(Some(processor));
    let tokenizer = wrap(inner);
    let plain = tokenizer.encode("the", Special::Add).expect("encoding");
    assert_eq!(plain[0], begin);
    assert_eq!(tokenizer.encode("the", Special::Keep).expect("encoding"), plain[1..]);
    let rendered = tokenizer.encode("<|endoftext|>the", Special::Keep).expect("encoding");
    assert_eq!(rendered, plain);
}

#[test]
fn truncation_and_padding_of_the_file_are_dropped() {
    let mut inner = tiny_tokenizer::build();
    let truncation = tokenizers::TruncationParams { max_length: 4, ..Default::default() };
    inner.with_truncation(Some(truncation)).expect("truncation");
    let padding = tokenizers::PaddingParams {
        strategy: tokenizers::PaddingStrategy::Fixed(64),
        pad_id: special_id(3),
        ..Default::default()
    };
    inner.with_padding(Some(padding));
    let tokens = wrap(inner).encode("abcdefgh", Special::Add).expect("encoding");
    assert_eq!(tokens.len(), 8, "{tokens:?}");
}

#[test]
fn tokens_beyond_the_embedding_are_refused() {
    let tokenizer = tiny();
    let error = tokenizer.clone().for_vocab(200).err().expect("half the vocabulary is missing");
    assert!(matches!(&error, Error::Tokenizer { reason, .. } if reason.contains("200")), "{error}");
    // Only added tokens lie past the end: fine until one is used.
    let tokenizer = tokenizer.for_vocab(special_id(1) as usize).expect("the vocabulary proper fits");
    tokenizer.encode("the<|endoftext|>", Special::Keep).expect("a token inside");
    let error = tokenizer.encode("<|im_end|>", Special::Keep).expect_err("a token outside");
    assert!(matches!(error, Error::TokenRange { id, .. } if id == special_id(2)), "{error}");
}

#[test]
fn tokenizers_are_compared_over_the_ids_both_have() {
    let (target, mut longer) = (tiny(), tiny_tokenizer::build());
    longer.add_special_tokens([AddedToken::from("<|mask|>", true)]).expect("a token");
    let longer = wrap(longer);
    assert_eq!(longer.first_difference(&target), None);
    longer.check_target(&target, None).expect("the same but for a token of its own");

    let mut other = tiny_tokenizer::build();
    other.add_special_tokens([AddedToken::from("<|other|>", true)]).expect("a token");
    let (id, ours, theirs) = longer.first_difference(&wrap(other)).expect("the last token differs");
    assert_eq!((id, ours.as_str(), theirs.as_str()), (special_id(4), "<|mask|>", "<|other|>"));

    let mut other = tiny_tokenizer::build();
    other.add_special_tokens([AddedToken::from("<|other|>", true)]).expect("a token");
    let other = wrap(other);
    let renamed = longer.check_target(&other, None).expect("a special token has another name");
    assert_eq!(renamed, [(special_id(4), "<|mask|>".to_owned(), "<|other|>".to_owned())]);
    assert_eq!(longer.check_target(&other, Some(special_id(4))).expect("they differ in the mask token only"), []);

    let mut plain = tiny_tokenizer::build();
    plain.add_tokens([AddedToken::from("other", false)]).expect("a token");
    let error = longer.check_target(&wrap(plain), None).expect_err("one of them is text");
    assert!(matches!(error, Error::TokenizerMismatch { id, .. } if id == special_id(4)), "{error}");
}

/// Llama 3's tokenizer, whose special tokens from 128004 on are called as in `names`.
fn llama(names: [(u32, &str); 4]) -> Tokenizer {
    let mut json: serde_json::Value =
        serde_json::from_str(include_str!("data/tokenizers/llama3/tokenizer.json")).expect("JSON");
    let vocabulary = json["model"]["vocab"].as_object_mut().expect("a vocabulary");
    vocabulary.retain(|_, id| names.iter().all(|(renamed, _)| *id != *renamed));
    vocabulary.extend(names.map(|(id, name)| (name.to_owned(), id.into())));
    for (id, name) in names {
        json["added_tokens"][id as usize - 128_000]["content"] = name.into();
    }
    wrap(json.to_string().parse().expect("a tokenizer"))
}

/// AMD's draft for Llama 3 has the names of 3.0 and serves 3.1 and later. What 3.0 calls `<|reserved_special_token_2|>` is
/// another token than what 3.1 calls so.
#[test]
fn a_draft_of_llama_3_0_serves_llama_3_1() {
    let old = llama([
        (128_004, "<|reserved_special_token_2|>"),
        (128_005, "<|reserved_special_token_3|>"),
        (128_008, "<|reserved_special_token_4|>"),
        (128_010, "<|reserved_special_token_5|>"),
    ]);
    let new = llama([
        (128_004, "<|finetune_right_pad_id|>"),
        (128_005, "<|reserved_special_token_2|>"),
        (128_008, "<|eom_id|>"),
        (128_010, "<|python_tag|>"),
    ]);
    for (draft, target) in [(&old, &new), (&new, &old)] {
        let ids: Vec<u32> = draft.check_target(target, None).expect("a draft").into_iter().map(|(id, ..)| id).collect();
        assert_eq!(ids, [128_004, 128_005, 128_008, 128_010]);
    }
    let notices = Draft::check(&old, &new, None).expect("a draft");
    assert!(notices.len() == 1 && notices[0].contains("4 special tokens"), "{notices:?}");
    let text = "<|start_header_id|>user<|end_header_id|>\n\nhello<|eot_id|>";
    let encode = |tokenizer: &Tokenizer| tokenizer.encode(text, Special::Keep).expect("encoding");
    assert_eq!(encode(&old), encode(&new));
}

#[test]
fn a_missing_or_broken_tokenizer_names_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokenizer.json");
    assert!(matches!(Tokenizer::from_file(&path), Err(Error::Io { path: named, .. }) if named == path));
    for text in ["", "{}", "[1]", "{\"model\": {\"type\": \"BPE\", \"vocab\": 3}}", "\u{0}"] {
        std::fs::write(&path, text).expect("writing");
        assert!(matches!(Tokenizer::from_file(&path), Err(Error::Tokenizer { path: named, .. }) if named == path));
    }
}

#[test]
fn a_character_split_over_tokens_comes_whole() {
    let tokenizer = tiny();
    let tokens = tokenizer.encode("a🦀é", Special::Keep).expect("encoding");
    assert_eq!(tokens.len(), 1 + 4 + 2);
    let mut stream = TextStream::new(&tokenizer);
    let pieces: Vec<Option<String>> = tokens.iter().map(|&token| stream.push(token)).collect();
    let expected = [Some("a"), None, None, None, Some("🦀"), None, Some("é")];
    assert_eq!(pieces, expected.map(|piece| piece.map(str::to_owned)));
    assert_eq!(stream.flush(), None);
}

#[test]
fn a_text_that_ends_inside_a_character_ends_with_one_replacement() {
    let tokenizer = tiny();
    let tokens = tokenizer.encode("a🦀", Special::Keep).expect("encoding");
    let (pieces, _) = streamed(TextStream::new(&tokenizer), &tokens[..4]);
    assert_eq!(pieces, ["a", "\u{FFFD}"]);
    // Text after a broken character is not lost, nor is it held back for ever.
    let broken: Vec<u32> = tokens[1..3].iter().chain(&tokens[..1]).copied().collect();
    let (pieces, _) = streamed(TextStream::new(&tokenizer), &broken);
    assert_eq!(pieces, ["\u{FFFD}a"]);
}

#[test]
fn special_tokens_are_shown_on_request_only() {
    let tokenizer = tiny();
    let tokens = tokenizer.encode("a<|im_end|>b", Special::Keep).expect("encoding");
    assert_eq!(tokenizer.decode(&tokens), "ab");
    let (_, text) = streamed(TextStream::new(&tokenizer).with_special_tokens(), &tokens);
    assert_eq!(text, "a<|im_end|>b");
    assert_eq!(tokenizer.decode(&[tokens[0], 99_999, tokens[2]]), "ab", "ids without a token are skipped");
}

#[test]
fn sentence_piece_drops_the_leading_space_of_a_text_but_not_of_a_continuation() {
    let metaspace = Decoder::Metaspace(Metaspace::new('▁', PrependScheme::First, true));
    for decoder in [llama2_decoder(), metaspace] {
        let inner = sentence_piece(decoder);
        let id = |token: &str| inner.token_to_id(token).expect("a token");
        let tokens = [id("▁the"), id("▁a"), id("▁▁"), id("b")];
        let whole = inner.decode(&tokens, false).expect("decoding");
        let tokenizer = wrap(inner);
        assert_eq!(whole, "the a  b");
        assert_eq!(streamed(TextStream::new(&tokenizer), &tokens).0, ["the", " a", "  ", "b"]);
        assert_eq!(streamed(TextStream::continuing(&tokenizer), &tokens).1, " the a  b");
    }
}

#[test]
fn sentence_piece_bytes_make_whole_characters() {
    let tokenizer = wrap(sentence_piece(llama2_decoder()));
    let name_of = |byte: u8| if byte.is_ascii() { char::from(byte).to_string() } else { format!("<0x{byte:02X}>") };
    let tokens: Vec<u32> = "a你好b".bytes().map(|byte| tokenizer.id(&name_of(byte)).expect("a token")).collect();
    assert_eq!(streamed(TextStream::new(&tokenizer), &tokens).0, ["a", "你", "好", "b"]);
}

#[test]
fn a_decoder_of_another_kind_streams_as_it_decodes() {
    let mut inner = tiny_tokenizer::build();
    inner.with_decoder(Some(WordPiece::new("##".to_owned(), false)));
    let tokens = inner.encode("the other and the", false).expect("encoding").get_ids().to_vec();
    let whole = inner.decode(&tokens, false).expect("decoding");
    assert_eq!(streamed(TextStream::new(&wrap(inner)), &tokens).1, whole);
}

#[test]
fn a_stop_string_ends_the_text_and_is_not_shown() {
    let tokenizer = tiny();
    let tokens = tokenizer.encode("one\n\nUser: two", Special::Keep).expect("encoding");
    let stops = vec![String::new(), "\nUser:".to_owned(), "never".to_owned()];
    let mut stream = TextStream::new(&tokenizer).with_stop_strings(stops);
    let mut text = String::new();
    for &token in &tokens {
        text.extend(stream.push(token));
        assert!(!text.contains("\nU"), "a piece of the stop string was shown");
    }
    text.extend(stream.flush());
    assert_eq!((text.as_str(), stream.stopped()), ("one\n", Some("\nUser:")));
}

#[test]
fn what_only_began_like_a_stop_string_is_shown() {
    let tokenizer = tiny();
    let tokens = tokenizer.encode("a\nUse", Special::Keep).expect("encoding");
    let stream = TextStream::new(&tokenizer).with_stop_strings(vec!["\nUser:".to_owned()]);
    assert_eq!(streamed(stream, &tokens).0, ["a", "\nUse"]);
    // The end of the text can complete one.
    let stream = TextStream::new(&tokenizer).with_stop_strings(vec!["\u{FFFD}".to_owned()]);
    let crab = tokenizer.encode("a🦀", Special::Keep).expect("encoding");
    assert_eq!(streamed(stream, &crab[..3]).0, ["a"]);
}

/// Texts of all kinds of characters, special tokens and near-stop-strings among them.
fn texts() -> impl Strategy<Value = String> {
    let part =
        prop_oneof![".{0,6}", "[ab\n ]{0,8}", "\\PC{1,3}", Just("🤷🏽‍♀️ the".to_owned()), Just("<|im_end|>".to_owned())];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn streamed_text_is_the_text(text in texts()) {
        let tokenizer = tiny();
        let tokens = tokenizer.encode(&text, Special::Keep).unwrap();
        let (pieces, whole) = streamed(TextStream::new(&tokenizer).with_special_tokens(), &tokens);
        prop_assert_eq!(&whole, &text);
        let broken = |text: &str| text.contains(char::REPLACEMENT_CHARACTER);
        prop_assert!(broken(&text) || !pieces.iter().any(|piece| broken(piece)));
    }

    #[test]
    fn any_tokens_stream_as_the_crate_decodes_them(tokens in prop::collection::vec(0..280u32, 0..40)) {
        let inner = tiny_tokenizer::build();
        let whole = inner.decode(&tokens, false).unwrap();
        let shown = inner.decode(&tokens, true).unwrap();
        let tokenizer = wrap(inner);
        prop_assert_eq!(streamed(TextStream::new(&tokenizer).with_special_tokens(), &tokens).1, whole);
        prop_assert_eq!(tokenizer.decode(&tokens), shown);
    }

    #[test]
    fn sentence_piece_streams_as_the_crate_decodes_it(text in "[abc▁é你🦀 ]{0,20}") {
        let inner = sentence_piece(llama2_decoder());
        let tokens = inner.encode(text.replace(' ', "▁"), false).unwrap().get_ids().to_vec();
        let whole = inner.decode(&tokens, false).unwrap();
        prop_assert_eq!(streamed(TextStream::new(&wrap(inner)), &tokens).1, whole);
    }

    #[test]
    fn stop_strings_do_not_depend_on_the_pieces(
        text in "[abé]{0,24}",
        stops in prop::collection::vec("[abé]{1,4}", 0..4),
        cuts in prop::collection::vec(0..24usize, 0..6),
    ) {
        // Straight from the definition: the earliest end at which some stop string is complete.
        let ends = (0..=text.len()).filter(|&end| text.is_char_boundary(end));
        let mut complete = ends.filter_map(|end| {
            let longest = stops.iter().filter(|stop| text[..end].ends_with(*stop)).map(String::len).max()?;
            Some(&text[..end - longest])
        });
        let expected = complete.next().unwrap_or(&text);

        let mut stop = pard::text::stop::StopStrings::new(stops.clone());
        let mut shown = String::new();
        let mut piece = String::new();
        for (position, character) in text.chars().enumerate() {
            piece.push(character);
            if cuts.contains(&position) {
                shown.push_str(&stop.push(&std::mem::take(&mut piece)));
            }
        }
        shown.push_str(&stop.push(&piece));
        if stop.found().is_none() {
            shown.push_str(&stop.flush());
        }
        prop_assert_eq!(shown, expected);
    }
}

#[test]
fn a_long_text_streams_in_linear_time() {
    let tokenizer = tiny();
    let tokens = tokenizer.encode(&"the thing and 🦀 ".repeat(4000), Special::Keep).expect("encoding");
    let mut stream = TextStream::new(&tokenizer).with_stop_strings(vec!["\n\nUser:".to_owned()]);
    let mut seconds = tokens.chunks(tokens.len() / 4).map(|quarter| {
        let start = std::time::Instant::now();
        quarter.iter().for_each(|&token| drop(stream.push(token)));
        start.elapsed().as_secs_f64()
    });
    let (first, last) = (seconds.next().expect("a quarter"), seconds.nth(2).expect("a quarter"));
    assert!(last < 5.0 * first + 0.05, "the first quarter took {first} s, the last {last} s");
}

/// A folder of a tokenizer that tests/data/make_tokenizers.py made.
pub fn tokenizer_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers").join(name)
}

#[test]
fn real_tokenizers_give_the_ids_of_the_reference() {
    let prose = "naïve 你好 🤷🏽\u{200d}♀️, I'll DON'T  1234.5\n\n\tend ";
    let code = "def f(x):\n\treturn x**2  # 12345678\n\n\n";
    // By transformers 5.23, with the whole tokenizer.
    let qwen3: [(&str, &[u32]); 2] = [
        (
            prose,
            &[
                3376, 37572, 586, 220, 108386, 11162, 97, 115, 145375, 378, 235, 31890, 30543, 11, 358, 3278, 44273,
                17323, 220, 220, 16, 17, 18, 19, 13, 20, 271, 6246, 220,
            ],
        ),
        (code, &[750, 282, 2075, 982, 853, 856, 334, 17, 220, 671, 220, 16, 17, 18, 19, 20, 21, 22, 23, 1406]),
    ];
    for (text, ids) in qwen3 {
        expect_ids("qwen3", text, ids);
    }
}

#[test]
fn tokenizers_that_write_a_begin_token_give_the_ids_of_the_reference() {
    let texts: Vec<String> = serde_json::from_str(include_str!("data/texts.json")).expect("texts");
    let ids: Vec<Vec<u32>> = serde_json::from_str(include_str!("data/tokenizers/llama3/ids.json")).expect("ids");
    assert_eq!(texts.len(), ids.len());
    for (text, ids) in texts.iter().zip(&ids) {
        expect_ids("llama3", text, ids);
    }
}

/// Checks the ids of `text`, and that it comes back.
fn expect_ids(folder: &str, text: &str, ids: &[u32]) {
    let tokenizer = Tokenizer::from_file(&tokenizer_folder(folder).join("tokenizer.json")).expect("a tokenizer");
    let tokens = tokenizer.encode(text, Special::Add).expect("encoding");
    assert_eq!(tokens, ids, "{folder}: {text:?}");
    let tokens = tokenizer.encode(text, Special::Keep).expect("encoding");
    if !text.contains("<|") {
        assert_eq!(tokenizer.decode(&tokens), text);
        assert_eq!(streamed(TextStream::new(&tokenizer), &tokens).1, text);
    }
}

pub fn chat_tokenizer() -> ChatTokenizer {
    ChatTokenizer {
        model_name: "tiny".to_owned(),
        tokenizer: tiny(),
        template: Some(tiny_tokenizer::CHAT_TEMPLATE.to_owned()),
        tool_template: None,
        special_tokens: Default::default(),
        stop_tokens: vec![special_id(2)],
        suggested: Vec::new(),
        grammars: Default::default(),
    }
}

/// Tokens of the whole conversation, encoded from its text alone.
fn anew(model: &ChatTokenizer, conversation: &Conversation) -> Vec<u32> {
    model.chat_tokens(conversation.messages(), Rendering::default()).expect("the template renders")
}

#[test]
fn a_conversation_goes_on_with_the_tokens_that_were_written() {
    let model = chat_tokenizer();
    let mut conversation = Conversation::new(vec![Message::new("system", "the rule")], Rendering::default());
    let first = conversation.ask(&model, "the other").expect("the template renders");
    assert_eq!(first, anew(&model, &conversation));
    // The model spells out what the tokenizer would write as one token, and ends by itself.
    let spelled: Vec<u32> = "the".chars().map(|c| model.tokenizer.id(&c.to_string()).expect("a byte")).collect();
    conversation.answer(&model, "the", &[&spelled[..], &[special_id(2)]].concat());
    let second = conversation.ask(&model, "and?").expect("the template renders");
    let known = [&first[..], &spelled, &[special_id(2)]].concat();
    assert_eq!(second[..known.len()], known);
    let spelled_anew = anew(&model, &conversation);
    assert_ne!(second, spelled_anew);
    assert_eq!(model.tokenizer.decode(&second), model.tokenizer.decode(&spelled_anew));
    assert_eq!(second[known.len()..], spelled_anew[spelled_anew.len() - (second.len() - known.len())..]);

    // One that was cut off lacks the end, which the template writes.
    conversation.answer(&model, "the", &spelled);
    let third = conversation.ask(&model, "and?").expect("the template renders");
    assert_eq!(third[..second.len() + 4], [&second[..], &spelled, &[special_id(2)]].concat());

    // A question that is taken back leaves no trace.
    conversation.take_back();
    assert_eq!(conversation.ask(&model, "and?").expect("the template renders"), third);
    assert_eq!(conversation.messages().len(), 6);
}

#[test]
fn a_conversation_is_read_anew_where_its_tokens_are_not_its_text() {
    let model = chat_tokenizer();
    let mut conversation = Conversation::new(Vec::new(), Rendering::default());
    conversation.ask(&model, "the other").expect("the template renders");
    let spelled: Vec<u32> = "the".chars().map(|c| model.tokenizer.id(&c.to_string()).expect("a byte")).collect();
    // Without the stop string `e`.
    conversation.answer(&model, "th", &spelled);
    assert_eq!(conversation.ask(&model, "and?").expect("the template renders"), anew(&model, &conversation));
    conversation.answer(&model, "the", &spelled);
    conversation.set_system(Some("the rule"));
    assert_eq!(conversation.system(), Some("the rule"));
    assert_eq!(conversation.ask(&model, "and?").expect("the template renders"), anew(&model, &conversation));
    conversation.reset();
    assert_eq!(conversation.messages(), [Message::new("system", "the rule")]);
    conversation.set_system(None);
    assert!(conversation.messages().is_empty());
    let broken = ChatTokenizer { template: Some("{{ raise_exception('no') }}".to_owned()), ..model };
    assert!(matches!(conversation.ask(&broken, "the"), Err(Error::Template { .. })));
    assert!(conversation.messages().is_empty(), "what could not be asked was not said");
}
