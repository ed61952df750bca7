//! Blocks of thoughts: found in prompts, told from the answer, and handed back to the template.

use pard::text::{Message, Rendering, Thinking, ThoughtParser, ThoughtPiece};
use proptest::prelude::*;
use serde_json::json;

use crate::support::tiny_model::Recipe;
use crate::support::tiny_tokenizer::add_thoughts;
use crate::text::chat_tokenizer;

/// The parts of `answer`, which comes in pieces that end at `cuts`.
fn parsed(thinking: Thinking, answer: &str, cuts: &[usize]) -> (String, String) {
    let mut parser = ThoughtParser::new(thinking);
    let mut pieces = Vec::new();
    let mut begin = 0;
    for end in cuts.iter().copied().chain([answer.len()]) {
        if let Some(piece) = answer.get(begin..end) {
            pieces.push(parser.push(piece));
            begin = end;
        }
    }
    pieces.push(parser.finish());
    pieces.into_iter().fold(Default::default(), |(thoughts, text), piece: ThoughtPiece| {
        (thoughts + &piece.thoughts, text + &piece.text)
    })
}

proptest! {
    #[test]
    fn thoughts_are_told_from_text_wherever_an_answer_is_cut(mut cuts in prop::collection::vec(0usize..60, 0..8)) {
        cuts.sort_unstable();
        for (thinking, answer, thoughts, text) in [
            (Thinking::Open, "\n a < b </thin \n\n</think>\n\n The <think>é\n", "a < b </thin", " The <think>é\n"),
            (Thinking::Open, "cut off </th", "cut off </th", ""),
            (Thinking::Open, "</think>at once", "", "at once"),
            (Thinking::Open, " \n ", "", ""),
            (Thinking::Possible, "<think>\nhm\n\nhm\n</think>\n\nYes.", "hm\n\nhm", "Yes."),
            (Thinking::Possible, "\n<think>hm</think>", "hm", ""),
            (Thinking::Possible, " <thin air", "", " <thin air"),
            (Thinking::Possible, "<thi", "", "<thi"),
            (Thinking::Possible, "Plain. <think>no</think>\n", "", "Plain. <think>no</think>\n"),
            (Thinking::None, "\n<think>a</think>", "", "\n<think>a</think>"),
        ] {
            let expected = (thoughts.to_owned(), text.to_owned());
            prop_assert_eq!(parsed(thinking, answer, &cuts), expected, "{:?}", answer);
        }
    }
}

#[test]
fn a_prompt_says_where_its_answer_begins() {
    let folder = tempfile::tempdir().expect("a folder");
    Recipe::llama(11).write(folder.path());
    add_thoughts(folder.path());
    let files = pard::checkpoint::ModelFiles::open(folder.path()).expect("a model");
    let of = |content: &str, rendering: Rendering| {
        let tokens = files.text.chat_tokens(&[Message::user(content)], rendering).expect("tokens");
        files.text.thinking(&tokens)
    };
    let opens = Rendering::default().variables(json!({ "opens": true }).as_object().expect("an object").clone());
    assert_eq!(of("the other", Rendering::default()), Thinking::Possible);
    assert_eq!(of("a <think>", Rendering::default()), Thinking::Possible);
    assert_eq!(of("the other", opens), Thinking::Open);
    assert_eq!(of("the other", Rendering::default().enable_thinking(Some(false))), Thinking::None);
    // A model that knows no such blocks.
    let plain = chat_tokenizer();
    let tokens = plain.chat_tokens(&[Message::user("a")], Rendering::default()).expect("tokens");
    assert_eq!(plain.thinking(&tokens), Thinking::None);
}
