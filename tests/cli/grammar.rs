//! Answers of a given form on the command line.

use serde_json::{Value, json};

use super::{MODELS, json_of, name, pard};

const SCHEMA: &str = r#"{"type": "object", "properties": {"the thing": {"enum": ["red", "blue"]}, "sizes": {"type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2, "maxItems": 2}},
    "required": ["the thing", "sizes"], "additionalProperties": false}"#;

fn generate(more: &[&str]) -> Value {
    let target = name(&MODELS.target);
    json_of(&[&["generate", "-m", target, "-p", "the other thing", "-n", "60", "--json"], more].concat())
}

#[test]
fn every_form_is_kept_to_by_every_method() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("schema.json");
    std::fs::write(&file, SCHEMA).expect("writing");
    let draft = name(&MODELS.draft);
    let alone = generate(&["--json-schema", SCHEMA]);
    let value: Value = serde_json::from_str(alone["text"].as_str().expect("a text")).expect("JSON");
    assert!(["red", "blue"].contains(&value["the thing"].as_str().expect("a text")), "{value}");
    assert_eq!(value["sizes"].as_array().expect("an array").len(), 2);
    assert_eq!(alone["forced_tokens"], 0);
    for more in [&["-d", draft][..], &["-d", draft, "--method", "vsd"], &["--method", "ngram"]] {
        let answered = generate(&[more, &["-k", "4", "--json-schema", name(&file)]].concat());
        assert_eq!(answered["output_ids"], alone["output_ids"], "{more:?}");
        assert!(answered["forced_tokens"].as_u64().expect("a number") > 10, "{answered}");
        assert!(answered["rounds"].as_u64() < alone["rounds"].as_u64(), "{answered}");
    }
    assert!(
        ["so be it", "the other"]
            .contains(&generate(&["--choice", "so be it", "--choice", "the other"])["text"].as_str().expect("a text"))
    );
    assert_eq!(generate(&["--regex", "[xy]{4}"])["text"].as_str().expect("a text").len(), 4);
    assert_eq!(generate(&["--grammar", "start: \"an\" \"d\""])["text"], json!("and"));
}

#[test]
fn what_is_no_grammar_is_refused_before_anything_is_loaded() {
    let refused = |arguments: &[&str], parts: &[&str], code: i32| {
        let target = name(&MODELS.target);
        pard(&[&["generate", "-m", target, "-p", "the"], arguments].concat()).expect_error(code, parts);
    };
    refused(&["--json-schema", "no-such-file.json"], &["--json-schema", "no-such-file.json"], 2);
    refused(&["--json-schema", "{"], &["JSON schema"], 1);
    refused(&["--grammar", "no-such-file"], &["--grammar", "no-such-file"], 2);
    refused(&["--json-schema", r#"{"type": "no such type"}"#], &["no such type"], 1);
    refused(&["--regex", "(a"], &["regular expression"], 1);
    refused(&["--regex", "a", "--choice", "b"], &["--choice"], 2);
}
