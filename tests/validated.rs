//! Answers of the default model in the form of a schema: what a validator of JSON schemas, which is not the engine's, accepts; by
//! every method the same, chosen and drawn.

use pard::decoding::{
    Completion, Costs, Draft, DraftLength, Engine, EngineOptions, FinishReason, Limits, Method, SamplingParams,
    Sequence, SequenceOptions,
};
use pard::model::PassCost;
use pard::text::{Grammar, Message, Rendering};
use serde_json::{Value, json};

use crate::real_model;

const CONTEXT: usize = 512;
const THINGS: [&str; 2] = ["apple", "lighthouse"];
const METHODS: [(Method, usize); 3] = [(Method::Ar, 0), (Method::Vsd, 4), (Method::Pard, 8)];

/// Nested objects, arrays, enumerations and patterns.
fn schema() -> Value {
    let size = json!({
        "type": "object",
        "properties": { "height": { "type": "integer", "minimum": 0, "maximum": 9999 }, "unit": { "enum": ["mm", "cm", "m"] } },
        "required": ["height", "unit"],
        "additionalProperties": false,
    });
    json!({
        "type": "object",
        "properties": {
            "kind": { "enum": ["animal", "plant", "tool", "place", "food"] },
            "code": { "type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$" },
            "size": size,
            "tags": { "type": "array", "items": { "type": "string", "maxLength": 12 }, "minItems": 1, "maxItems": 2 },
        },
        "required": ["kind", "code", "size", "tags"],
        "additionalProperties": false,
    })
}

/// The answers to all prompts by all methods, in the same steps.
fn answers(engine: &Engine, sampling: &SamplingParams) -> Vec<Vec<String>> {
    let text = engine.text().expect("a tokenizer");
    let free = Costs {
        target: PassCost::from_points(&[(1, 1.0), (32, 1.5)]),
        draft: PassCost::from_points(&[(1, 0.01), (32, 0.02)]),
    };
    let mut at_work: Vec<(Sequence, Completion, String)> = Vec::new();
    for thing in THINGS {
        let message = Message::new("user", format!("Describe this thing as JSON: {thing}."));
        let prompt = text.chat_tokens(&[message], Rendering::default()).expect("the template renders");
        for (method, drafts) in METHODS {
            let options = SequenceOptions::default().method(method).drafts(DraftLength::Fixed(drafts)).context(CONTEXT);
            let mut sequence = engine.add(options.sampling(sampling.clone())).expect("a sequence");
            sequence.set_costs(free.clone());
            sequence.start(&prompt).expect("start");
            let completion = Completion::new(text, Limits::default().max_tokens(150), prompt.len(), CONTEXT);
            at_work.push((sequence, completion, String::new()));
        }
    }
    loop {
        let going = at_work.iter_mut().filter(|(_, completion, _)| completion.finish_reason().is_none());
        let (mut sequences, mut rest): (Vec<_>, Vec<_>) =
            going.map(|(sequence, completion, said)| (sequence, (completion, said))).unzip();
        if sequences.is_empty() {
            break;
        }
        engine.step(&mut sequences).expect("a step");
        for (sequence, (completion, said)) in sequences.into_iter().zip(&mut rest) {
            said.push_str(&completion.take_round(sequence).text);
        }
    }
    let ended = |(_, completion, said): (Sequence, Completion, String)| {
        assert_eq!(completion.finish_reason(), Some(FinishReason::Stop), "{said}");
        said
    };
    let all: Vec<String> = at_work.into_iter().map(ended).collect();
    all.chunks(METHODS.len()).map(<[String]>::to_vec).collect()
}

#[test]
fn a_validator_accepts_what_every_method_writes() {
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let model = real_model::model();
    let draft = Draft::load(model, "models/smollm2-135m-instruct-pard", Default::default()).expect("the draft");
    let options = EngineOptions::default().context(CONTEXT).sequences(THINGS.len() * METHODS.len());
    let engine = Engine::new(model, Some(&draft), options).expect("an engine");
    let grammar = Grammar::JsonSchema(schema.to_string());
    let greedy = SamplingParams::default().grammar(Some(grammar));
    let mut all = Vec::new();
    for sampling in [greedy.clone(), greedy.temperature(0.8).seed(7)] {
        for said in answers(&engine, &sampling) {
            let value: Value = serde_json::from_str(&said[0]).expect("JSON");
            let faults: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(faults.is_empty(), "{value}: {faults:?}");
            assert!(said.iter().all(|other| *other == said[0]), "{said:?}");
            all.push(said[0].clone());
        }
    }
    all.sort();
    all.dedup();
    assert!(all.len() > THINGS.len(), "{all:?}");
}
