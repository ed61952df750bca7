//! Tools: told as transformers tells them, called within the grammar, and found in what a model writes.

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::ApproximateTokEnv;
use llguidance::{Matcher, ParserFactory};
use pard::text::{
    AnswerPart, ChatTemplate, Grammar, Message, Rendering, Tool, ToolCall, ToolChoice, ToolFormat, ToolParser,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::text::{chat_tokenizer, tokenizer_folder};

fn weather() -> Value {
    json!({ "type": "function", "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": { "city": { "type": "string" }, "days": { "type": "integer" } },
            "required": ["city"],
        },
    } })
}

/// A tool whose schema defines and refers, as pydantic writes it.
fn travel() -> Value {
    json!({ "type": "function", "function": {
        "name": "travel",
        "parameters": {
            "$defs": { "Way": { "enum": ["train", "bus"] } },
            "type": "object",
            "properties": { "by": { "$ref": "#/$defs/Way" }, "then": { "anyOf": [{ "$ref": "#/$defs/Way" }, { "type": "null" }] } },
            "required": ["by", "then"],
            "additionalProperties": false,
        },
    } })
}

fn tools() -> Vec<Tool> {
    [weather(), travel()].iter().map(|tool| Tool::from_json(tool).expect("a tool")).collect()
}

fn call(name: &str, arguments: &str) -> AnswerPart {
    AnswerPart::Call(ToolCall { id: String::new(), name: name.to_owned(), arguments: arguments.to_owned() })
}

fn text(text: &str) -> AnswerPart {
    AnswerPart::Text(text.to_owned())
}

/// A question, a call, and its result.
fn talk() -> Vec<Message> {
    let mut called = Message::assistant("");
    let arguments = r#"{"city": "Köln", "days": 2}"#.to_owned();
    called.tool_calls = vec![ToolCall { id: "call_1".to_owned(), name: "weather".to_owned(), arguments }];
    let mut result = Message::new("tool", "rain");
    (result.tool_call_id, result.name) = (Some("call_1".to_owned()), Some("weather".to_owned()));
    vec![Message::system("Be terse."), Message::user("Wetter in Köln?"), called, result]
}

/// What transformers' `apply_chat_template` gives with the same template, messages and tool.
const QWEN3: &str = "<|im_start|>system\nBe terse.\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
    You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{\"type\": \"function\", \"function\": \
    {\"name\": \"weather\", \"description\": \"The weather of a city\", \"parameters\": {\"type\": \"object\", \"properties\": \
    {\"city\": {\"type\": \"string\"}, \"days\": {\"type\": \"integer\"}}, \"required\": [\"city\"]}}}\n</tools>\n\nFor each \
    function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n\
    {\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n<|im_start|>user\nWetter in \
    Köln?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\", \"days\": 2}}\n\
    </tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n<|im_start|>assistant\n";

#[test]
fn qwen3s_template_tells_of_tools_as_in_transformers() {
    let path = tokenizer_folder("qwen3").join("tokenizer_config.json");
    let config: Value = serde_json::from_slice(&std::fs::read(path).expect("reading")).expect("JSON");
    let source = config["chat_template"].as_str().expect("a template");
    assert_eq!(ToolFormat::of(source), ToolFormat::Hermes);
    let template = ChatTemplate::new(source, Default::default()).expect("compiling");
    let rendered = template.render_with_tools(&talk(), &[weather()], Rendering::default()).expect("rendering");
    assert_eq!(rendered, QWEN3);
}

/// The tiny model's template knows of no tools; Qwen's words are those that most models have read.
#[test]
fn a_template_without_tools_tells_of_them_in_words() {
    let model = chat_tokenizer();
    let tokens = model.chat_tokens_with_tools(&talk(), &tools()[..1], Rendering::default()).expect("tokens");
    let rendered: Vec<u8> = tokens.iter().flat_map(|&token| model.tokenizer.bytes(token)).collect();
    assert_eq!(String::from_utf8(rendered).expect("UTF-8"), QWEN3);
    let without = model.chat_tokens_with_tools(&talk()[..2], &[], Rendering::default()).expect("tokens");
    assert_eq!(without, model.chat_tokens(&talk()[..2], Rendering::default()).expect("tokens"));
}

/// The parts of `answer`, which comes in pieces that end at `cuts`.
fn parsed(format: ToolFormat, answer: &str, cuts: &[usize]) -> Vec<AnswerPart> {
    let mut parser = ToolParser::new(format);
    let mut parts: Vec<AnswerPart> = Vec::new();
    let mut begin = 0;
    for end in cuts.iter().copied().chain([answer.len()]) {
        if let Some(piece) = answer.get(begin..end) {
            parts.extend(parser.push(piece));
            begin = end;
        }
    }
    parts.extend(parser.finish());
    // Text that follows text is one text.
    parts.into_iter().fold(Vec::new(), |mut joined, part| {
        match (joined.last_mut(), part) {
            (Some(AnswerPart::Text(before)), AnswerPart::Text(more)) => before.push_str(&more),
            (_, part) => joined.push(part),
        }
        joined
    })
}

fn answers() -> Vec<(ToolFormat, &'static str, Vec<AnswerPart>)> {
    use ToolFormat::{Hermes, Llama3};
    vec![
        (Hermes, "No tool. 1 < 2, <tool> it is.", vec![text("No tool. 1 < 2, <tool> it is.")]),
        (
            Hermes,
            "Let me see.\n\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln <b>\"}}\n</tool_call>",
            vec![text("Let me see."), call("weather", r#"{"city":"Köln <b>"}"#)],
        ),
        (
            Hermes,
            "<tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>\n<tool_call>\n{\"arguments\": \"{}\", \"name\": \"b\"}\n</tool_call>",
            vec![call("a", "{}"), call("b", "{}")],
        ),
        // Not closed, as models leave it at the end, and cut off.
        (Hermes, "<tool_call>\n{\"name\": \"a\", \"arguments\": {}}", vec![call("a", "{}")]),
        (Hermes, "<tool_call>\n{\"name\": \"a\", \"argum", vec![text("<tool_call>\n{\"name\": \"a\", \"argum")]),
        (Hermes, "<tool_call>no JSON</tool_call> after", vec![text("<tool_call>no JSON</tool_call> after")]),
        (Llama3, "{\"name\": \"a\", \"parameters\": {\"x\": [1, 2]}}", vec![call("a", r#"{"x":[1,2]}"#)]),
        (
            Llama3,
            "{\"name\": \"a\", \"parameters\": {}}; {\"name\": \"b\", \"parameters\": {}}",
            vec![call("a", "{}"), call("b", "{}")],
        ),
        (Llama3, "{\"no\": \"call\"}", vec![text("{\"no\": \"call\"}")]),
        (Llama3, "Plain { text }", vec![text("Plain { text }")]),
    ]
}

proptest! {
    #[test]
    fn calls_are_found_wherever_an_answer_is_cut(mut cuts in prop::collection::vec(0usize..120, 0..8)) {
        cuts.sort_unstable();
        for (format, answer, expected) in answers() {
            prop_assert_eq!(parsed(format, answer, &cuts), expected, "{:?}", answer);
        }
    }
}

/// Whether the grammar of `choice` allows `answer` and its end, byte by byte.
fn allows(format: ToolFormat, choice: &ToolChoice, parallel: bool, answer: &str) -> bool {
    let Some(Grammar::Lark(lark)) = format.grammar(&tools(), choice, parallel) else { panic!("no grammar") };
    let bytes = ApproximateTokEnv::single_byte_env();
    let factory = ParserFactory::new_simple(&bytes).expect("a factory");
    let mut matcher = Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(lark.clone())));
    assert_eq!(matcher.get_error(), None, "{lark}");
    let tokens: Vec<u32> = answer.bytes().map(u32::from).collect();
    matcher.try_consume_tokens(&tokens).expect("bytes") == tokens.len() && matcher.is_accepting().expect("a state")
}

#[test]
fn calls_keep_to_the_schemas_of_the_tools() {
    use ToolFormat::{Hermes, Llama3};
    let named = ToolChoice::Named("travel".to_owned());
    let (auto, required) = (ToolChoice::Auto, ToolChoice::Required);
    let rain = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\"}}\n</tool_call>";
    let train = "<tool_call>\n{\"name\": \"travel\", \"arguments\": {\"by\": \"train\", \"then\": null}}\n</tool_call>";
    let plane = train.replace("train", "plane");
    for (choice, answer, allowed) in [
        (&required, rain, true),
        (&required, train, true),
        (&required, &plane, false),
        (&required, "It rains.", false),
        (&named, train, true),
        (&named, rain, false),
        (&auto, "It rains. 1 < 2", true),
        (&auto, rain, true),
        (&auto, &format!("Let me see.\n{train}\n{rain}"), true),
        (&auto, &format!("Let me see.\n{plane}"), false),
        (&auto, "<tool_call>\nnothing", false),
    ] {
        assert_eq!(allows(Hermes, choice, true, answer), allowed, "{choice:?}: {answer}");
    }
    let both = format!("{rain}\n{train}");
    assert!(allows(Hermes, &required, true, &both) && !allows(Hermes, &required, false, &both));
    assert!(allows(Hermes, &auto, true, &both) && !allows(Hermes, &auto, false, &both));
    for one in ["It rains. 1 < 2", rain, &format!("Let me see.\n{train}")] {
        assert!(allows(Hermes, &auto, false, one), "{one}");
    }
    let llama = "{\"name\": \"travel\", \"parameters\": {\"by\": \"bus\", \"then\": \"train\"}}";
    assert!(allows(Llama3, &required, true, llama) && allows(Llama3, &auto, true, llama));
    assert!(allows(Llama3, &auto, true, "It rains.") && !allows(Llama3, &required, true, "It rains."));
    assert!(!allows(Llama3, &named, true, &llama.replace("travel", "weather")));
    assert_eq!(Hermes.grammar(&tools(), &ToolChoice::None, true), None::<Grammar>);
}
