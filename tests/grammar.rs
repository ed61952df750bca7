//! Answers that keep to a grammar: every method writes the same tokens, what is forced is proposed, and what cannot be kept to
//! is refused.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use pard::decoding::{
    AcceptanceRule, Costs, Draft, DraftLength, Engine, EngineOptions, Method, SamplingParams, Sequence, SequenceOptions,
};
use pard::error::OptionName;
use pard::model::PassCost;
use pard::text::{Grammar, Thinking};
use pard::{Error, Model};

use crate::support::gpu::{device, sweep, upload};
use crate::support::tiny_model::Recipe;
use crate::support::tiny_tokenizer::{TOKENS, add_thoughts};

const CONTEXT: usize = 256;
const MASK: u32 = 5;

/// Objects, arrays, numbers, choices and patterns; no text in it is long.
const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "kind": {"enum": ["animal", "annual plant", "stone"]},
        "code": {"type": "string", "pattern": "^[a-f]{2}-[0-9]{3}$"},
        "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 1, "maxItems": 3},
        "inner": {"type": "object", "properties": {"the other thing": {"type": "boolean"}}, "required": ["the other thing"],
                  "additionalProperties": false}
    },
    "required": ["name", "kind", "code", "sizes", "inner"],
    "additionalProperties": false
}"#;

fn grammars() -> Vec<Grammar> {
    let choices = ["the thing", "then", "the other"].map(str::to_owned).to_vec();
    vec![
        Grammar::JsonSchema(SCHEMA.to_owned()),
        Grammar::Regex("(and|the) [a-d]{2,6}!".to_owned()),
        Grammar::Choice(choices),
        Grammar::Lark("start: item (\", \" item){2}\nitem: /[0-9]{1,2}/ \" and the rest\"".to_owned()),
    ]
}

fn load(recipe: &Recipe) -> Model {
    let folder = tempfile::tempdir().expect("a folder");
    recipe.write(folder.path());
    Model::load(device(), folder.path().to_str().expect("UTF-8"), Default::default()).expect("a model")
}

static TARGET: LazyLock<Model> = LazyLock::new(|| load(&Recipe::llama(11)));
static STRANGER: LazyLock<Model> = LazyLock::new(|| load(&Recipe::llama(12)));

fn engine(draft: &Model, sequences: usize) -> Engine {
    let draft = Draft::new(draft, &TARGET, Some(MASK)).expect("a draft");
    Engine::new(&TARGET, Some(&draft), EngineOptions::default().context(CONTEXT).sequences(sequences))
        .expect("an engine")
}

fn options(method: Method, drafts: usize, sampling: SamplingParams) -> SequenceOptions {
    let options = SequenceOptions::default().method(method).drafts(DraftLength::Fixed(drafts));
    options.context(CONTEXT).sampling(sampling)
}

fn prompt() -> Vec<u32> {
    TARGET.text.text_tokens("What is the other thing?").expect("tokens")
}

/// The end of an answer among its tokens, if it is there.
fn end_of(tokens: &[u32]) -> Option<usize> {
    tokens.iter().position(|token| TARGET.text.stop_tokens.contains(token))
}

/// The answer's tokens, those that end it left out.
fn answer(sequence: &mut Sequence) -> Vec<u32> {
    let prompt = prompt();
    sequence.start(&prompt).expect("start");
    loop {
        let written = &sequence.tokens()[prompt.len()..];
        if let Some(end) = end_of(written) {
            return written[..end].to_vec();
        }
        sequence.round().expect("a round");
    }
}

fn text_of(tokens: &[u32]) -> String {
    let bytes = tokens.iter().flat_map(|&token| TARGET.text.tokenizer.bytes(token)).collect();
    String::from_utf8(bytes).expect("UTF-8")
}

#[track_caller]
fn check(grammar: &Grammar, text: &str) {
    let number = |text: &str| text.parse::<u8>().is_ok_and(|number| number < 100);
    let fits = match grammar {
        Grammar::JsonSchema(_) => {
            let value: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
            let sizes = value["sizes"].as_array().expect("an array");
            value["name"].as_str().is_some_and(|name| name.chars().count() <= 5)
                && ["animal", "annual plant", "stone"].contains(&value["kind"].as_str().unwrap_or_default())
                && value["code"].as_str().is_some_and(|code| code.len() == 6 && code.as_bytes()[2] == b'-')
                && (1..=3).contains(&sizes.len())
                && sizes.iter().all(|size| size.as_u64().is_some_and(|size| size < 100))
                && value["inner"]["the other thing"].is_boolean()
                && value.as_object().is_some_and(|fields| fields.len() == 5)
        }
        Grammar::Regex(_) => {
            let rest = text.strip_prefix("and ").or_else(|| text.strip_prefix("the "));
            let letters = rest.and_then(|rest| rest.strip_suffix('!'));
            letters.is_some_and(|all| (2..=6).contains(&all.len()) && all.chars().all(|one| ('a'..='d').contains(&one)))
        }
        Grammar::Choice(choices) => choices.iter().any(|choice| choice == text),
        _ => {
            let items: Vec<&str> = text.split(", ").collect();
            items.len() == 3 && items.iter().all(|item| item.strip_suffix(" and the rest").is_some_and(number))
        }
    };
    assert!(fits, "{text} by {grammar:?}");
}

#[test]
fn every_method_writes_the_same_tokens_and_keeps_to_the_grammar() {
    let lengths = if sweep() { (1..=16).collect() } else { vec![1, 3, 8, 16] };
    let engines = [engine(&TARGET, 1), engine(&STRANGER, 1)];
    for grammar in grammars() {
        for (temperature, seed) in [(0.0, 0), (0.8, 3), (1.5, 4)] {
            let sampling = SamplingParams::default().temperature(temperature).seed(seed).grammar(Some(grammar.clone()));
            let alone = options(Method::Ar, 0, sampling.clone());
            let alone = answer(&mut engines[0].add(alone).expect("a sequence"));
            check(&grammar, &text_of(&alone));
            for &drafts in &lengths {
                for (draft, engine) in engines.iter().enumerate() {
                    for method in [Method::Vsd, Method::Pard, Method::Ngram] {
                        let mut sequence = engine.add(options(method, drafts, sampling.clone())).expect("a sequence");
                        let context = format!("{} with K = {drafts}, draft {draft}, {sampling:?}", method.name());
                        assert_eq!(answer(&mut sequence), alone, "{context}");
                    }
                }
            }
        }
    }
}

/// Answers that think first, freely, and keep to the grammar from there on, with a line end between the two or without.
#[test]
fn a_grammar_that_begins_after_thoughts_is_kept_to_by_every_method() {
    let thinker = |seed| {
        let folder = tempfile::tempdir().expect("a folder");
        Recipe::llama(seed).write(folder.path());
        add_thoughts(folder.path());
        Model::load(device(), folder.path().to_str().expect("UTF-8"), Default::default()).expect("a model")
    };
    let (target, stranger) = (thinker(11), thinker(12));
    let options_of = EngineOptions::default().context(CONTEXT);
    let engines = [&target, &stranger].map(|draft| {
        let draft = Draft::new(draft, &target, Some(MASK)).expect("a draft");
        Engine::new(&target, Some(&draft), options_of).expect("an engine")
    });
    let [opening, closing] = [TOKENS as u32, TOKENS as u32 + 1];
    let line_end = target.text.tokenizer.id("Ċ").expect("a line end");
    let grammar = Grammar::Regex("(and|the) [a-d]{2,6}!".to_owned());
    let (mut thoughts, mut gaps) = (0, 0);
    for (thinking, temperature, seed) in [
        (Thinking::Open, 0.0, 0),
        (Thinking::Open, 0.8, 3),
        (Thinking::Open, 1.5, 4),
        (Thinking::Possible, 0.8, 5),
        (Thinking::Possible, 1.5, 6),
        (Thinking::None, 1.5, 7),
    ] {
        let bias = vec![(opening, 2.0), (closing, 4.5), (line_end, 4.0)];
        let sampling = SamplingParams::default().temperature(temperature).seed(seed).logit_bias(bias);
        let sampling = sampling.frequency_penalty(0.5).grammar(Some(grammar.clone())).thinking(thinking);
        let alone = answer(&mut engines[0].add(options(Method::Ar, 0, sampling.clone())).expect("a sequence"));
        let begin = alone.iter().position(|&token| token == closing).map_or(0, |at| at + 1);
        let gap = usize::from(alone.get(begin).is_some_and(|&token| begin > 0 && token == line_end));
        check(&grammar, &text_of(&alone[begin + gap..]));
        assert!(thinking != Thinking::None || begin == 0);
        assert!(thinking != Thinking::Open || begin > 0);
        (thoughts, gaps) = (thoughts + begin, gaps + gap);
        for drafts in [1, 3, 8] {
            for (draft, engine) in engines.iter().enumerate() {
                for method in [Method::Vsd, Method::Pard, Method::Ngram] {
                    let mut sequence = engine.add(options(method, drafts, sampling.clone())).expect("a sequence");
                    let context = format!("{} with K = {drafts}, draft {draft}, {sampling:?}", method.name());
                    assert_eq!(answer(&mut sequence), alone, "{context}");
                    // Cut off within the thoughts and right after them, it goes on as before.
                    for keep in [begin / 2, begin, begin + 2] {
                        sequence.truncate(prompt().len() + keep);
                        while end_of(&sequence.tokens()[prompt().len()..]).is_none() {
                            sequence.round().expect("a round");
                        }
                        assert_eq!(sequence.tokens()[prompt().len()..][..alone.len()], alone, "{keep} kept: {context}");
                    }
                }
            }
        }
    }
    assert!(thoughts > 20 && gaps > 0, "{thoughts} tokens of thoughts, {gaps} line ends after them");
}

/// Penalties, biases and truncation beside the grammar, and K chosen round by round.
#[test]
fn a_grammar_goes_with_all_other_options() {
    let grammar = Grammar::JsonSchema(SCHEMA.to_owned());
    let everything = SamplingParams::default()
        .temperature(1.2)
        .seed(7)
        .top_k(40)
        .top_p(0.9)
        .repetition_penalty(1.2)
        .frequency_penalty(0.3)
        .logit_bias(vec![(70, 2.0)])
        .banned(vec![71])
        .top_logprobs(Some(2))
        .grammar(Some(grammar.clone()));
    let engine = engine(&STRANGER, 1);
    let alone = answer(&mut engine.add(options(Method::Ar, 0, everything.clone())).expect("a sequence"));
    check(&grammar, &text_of(&alone));
    for method in [Method::Vsd, Method::Pard, Method::Ngram] {
        let automatic =
            options(method, 0, everything.clone()).drafts(DraftLength::Auto).with_ngrams(method != Method::Ngram);
        assert_eq!(answer(&mut engine.add(automatic).expect("a sequence")), alone, "{}", method.name());
    }
}

#[test]
fn forced_tokens_cost_no_round() {
    let sampling = SamplingParams::default().grammar(Some(Grammar::JsonSchema(SCHEMA.to_owned())));
    let engine = engine(&STRANGER, 1);
    let rounds = |method, drafts| {
        let mut sequence = engine.add(options(method, drafts, sampling.clone())).expect("a sequence");
        let tokens = answer(&mut sequence).len();
        (sequence.statistics().rounds, sequence.statistics().forced, tokens)
    };
    let (plain, forced, tokens) = rounds(Method::Ar, 0);
    assert_eq!((plain, forced), (tokens + 1, 0), "AR is a token a round");
    for (method, drafts) in [(Method::Ngram, 1), (Method::Pard, 1), (Method::Vsd, 1)] {
        let (rounds, forced, _) = rounds(method, drafts);
        // The names of the fields alone are more than 60 tokens.
        assert!(forced > 60 && rounds < tokens - 50, "{}: {rounds} rounds, {forced} forced", method.name());
    }
}

/// Sequences with a grammar and without share passes, and write what they write alone.
#[test]
fn sequences_with_and_without_grammars_share_passes() {
    let engine = engine(&STRANGER, 4);
    let plain = SamplingParams::default();
    let schema = plain.clone().grammar(Some(Grammar::JsonSchema(SCHEMA.to_owned())));
    let drawn = plain.clone().temperature(0.9).seed(5).grammar(Some(Grammar::Regex("[a-d]{30,40}".to_owned())));
    let tasks = [
        options(Method::Pard, 4, schema.clone()),
        options(Method::Pard, 3, plain),
        options(Method::Ngram, 4, drawn),
        options(Method::Vsd, 2, schema),
    ];
    let prompt = prompt();
    let alone: Vec<Vec<u32>> = tasks
        .iter()
        .map(|options| {
            let mut sequence = engine.add(options.clone().method(Method::Ar)).expect("a sequence");
            sequence.start(&prompt).expect("start");
            while sequence.tokens().len() < prompt.len() + 60 && end_of(&sequence.tokens()[prompt.len()..]).is_none() {
                sequence.round().expect("a round");
            }
            sequence.tokens()[prompt.len()..].to_vec()
        })
        .collect();
    let points = |end| PassCost::from_points(&[(1, 1.0), (32, end)]);
    let costs = Costs { target: points(2.0), draft: PassCost::from_points(&[(1, 0.01), (32, 0.02)]) };
    let mut sequences: Vec<Sequence> = tasks.map(|options| engine.add(options).expect("a sequence")).into();
    for sequence in &mut sequences {
        sequence.set_costs(costs.clone());
        sequence.start(&prompt).expect("start");
    }
    let is_done = |sequence: &Sequence, wanted: &[u32]| sequence.tokens().len() >= prompt.len() + wanted.len();
    let mut shared = 0;
    loop {
        let mut going: Vec<&mut Sequence> = sequences
            .iter_mut()
            .zip(&alone)
            .filter(|(one, wanted)| !is_done(one, wanted))
            .map(|(one, _)| one)
            .collect();
        if going.is_empty() {
            break;
        }
        let count = going.len();
        let passes = engine.step(&mut going).expect("a step");
        shared += usize::from(passes.len() < count);
    }
    assert!(shared > 5, "{shared} steps had passes of several sequences");
    for (sequence, wanted) in sequences.iter().zip(&alone) {
        let options = sequence.options();
        assert_eq!(&sequence.tokens()[prompt.len()..][..wanted.len()], wanted, "{options:?}");
    }
}

/// A conversation goes on, and a sequence changes its grammar.
#[test]
fn each_answer_begins_the_grammar_anew() {
    let engine = engine(&STRANGER, 1);
    let [schema, regex, ..] = &grammars()[..] else { panic!("there are several") };
    let with = |grammar: &Grammar| SamplingParams::default().grammar(Some(grammar.clone()));
    let mut sequence = engine.add(options(Method::Pard, 4, with(schema))).expect("a sequence");
    let first = answer(&mut sequence);
    assert_eq!(answer(&mut sequence), first);
    sequence.set_sampling(with(regex)).expect("a grammar");
    check(regex, &text_of(&answer(&mut sequence)));
    sequence.set_sampling(SamplingParams::default()).expect("no grammar");
    sequence.start(&prompt()).expect("start");
    sequence.round().expect("a round");
    sequence.set_sampling(with(schema)).expect("a grammar");
    assert_eq!(answer(&mut sequence), first);
    // Tokens that were cut off are asked for again.
    let prompt = prompt();
    sequence.start(&prompt).expect("start");
    while sequence.tokens().len() < prompt.len() + 40 {
        sequence.round().expect("a round");
    }
    sequence.truncate(prompt.len() + 25);
    while sequence.tokens().len() < prompt.len() + 60 {
        sequence.round().expect("a round");
    }
    assert_eq!(sequence.tokens()[prompt.len()..][..60], first[..60]);
}

#[test]
fn what_cannot_be_kept_to_is_refused_and_the_fault_is_named() {
    let deep = format!("{}\"a\"{}", "(".repeat(20_000), ")".repeat(20_000));
    for (grammar, part) in [
        (Grammar::JsonSchema("{".to_owned()), "JSON"),
        (Grammar::JsonSchema(r#"{"type": "no such type"}"#.to_owned()), "no such type"),
        (Grammar::JsonSchema(r#"{"type": "string", "format": "no-such-format"}"#.to_owned()), "no-such-format"),
        (Grammar::JsonSchema(r##"{"$ref": "#/nowhere"}"##.to_owned()), "nowhere"),
        (Grammar::JsonSchema(r#"{"type": "integer", "minimum": 5, "maximum": 4}"#.to_owned()), "5"),
        (Grammar::Regex("(a".to_owned()), "regular expression"),
        (Grammar::Lark("start: missing".to_owned()), "missing"),
        (Grammar::Lark(format!("start: {deep}")), "grammar"),
        (Grammar::Lark(format!("start: \"{}\"", "a".repeat(600_000))), "larger than 500 kB"),
        (Grammar::Choice(Vec::new()), "empty"),
    ] {
        let error = TARGET.text.check_grammar(&grammar).expect_err("a faulty grammar").to_string();
        assert!(error.contains(part), "{error} does not name {part}");
        let sampling = SamplingParams::default().grammar(Some(grammar));
        let engine = engine(&STRANGER, 1);
        let refused = engine.add(options(Method::Ar, 0, sampling.clone())).map(drop).expect_err("a faulty grammar");
        assert!(matches!(refused, Error::Grammar { .. }), "{refused}");
        let mut sequence = engine.add(engine.defaults()).expect("a sequence");
        assert!(matches!(sequence.set_sampling(sampling), Err(Error::Grammar { .. })));
        assert_eq!(sequence.options().sampling.grammar, None);
    }
    let bare = upload(&Recipe::llama(11), &crate::support::gpu::plan(Default::default()));
    let sampling = SamplingParams::default().grammar(Some(Grammar::Json));
    let error = Sequence::new(&bare, None, options(Method::Ar, 0, sampling)).map(drop).expect_err("no tokenizer");
    assert!(matches!(error, Error::Option { option: OptionName::Grammar, .. }), "{error}");
}

/// All that the grammar allows is banned: an error, and no text that does not keep to it.
#[test]
fn a_grammar_of_banned_tokens_ends_in_an_error() {
    let banned: Vec<u32> =
        (0..vocabulary()).filter(|&id| TARGET.text.tokenizer.bytes(id).first() == Some(&b'q')).collect();
    let sampling = SamplingParams::default().banned(banned).grammar(Some(Grammar::Regex("qa".to_owned())));
    let mut sequence = engine(&STRANGER, 1).add(options(Method::Ar, 0, sampling)).expect("a sequence");
    sequence.start(&prompt()).expect("start");
    let error = sequence.round().map(<[u32]>::to_vec).expect_err("nothing is left");
    assert!(matches!(error, Error::Grammar { .. }), "{error}");
}

fn vocabulary() -> u32 {
    TARGET.weights.config().vocab_size as u32
}

/// Expensive grammars are refused, or their masks are made within bounds.
#[test]
fn hostile_grammars_are_bounded() {
    let wide =
        (0..3000).map(|index| format!("\"field {index}\": {{\"type\": \"string\"}}")).collect::<Vec<_>>().join(", ");
    let mut nested = r#"{"type": "string"}"#.to_owned();
    for _ in 0..60 {
        nested = format!(r#"{{"type": "array", "items": {nested}, "maxItems": 1000}}"#);
    }
    let names: String = (0..5000).map(|index| format!("r{index}: r{}\n", index + 1)).collect();
    let definitions = (0..2000)
        .map(|index| format!(r##""{index}": {{"items": {{"$ref": "#/$defs/{}"}}}}"##, index + 1))
        .collect::<Vec<_>>()
        .join(", ");
    for grammar in [
        Grammar::Lark(format!("start: r0\n{names}r5000: \"a\"")),
        Grammar::JsonSchema(format!(
            r##"{{"$defs": {{{definitions}, "2000": {{"type": "integer"}}}}, "$ref": "#/$defs/0"}}"##
        )),
        Grammar::Regex("((a|b)*c?(a|b)*){2000}".to_owned()),
        Grammar::Regex("(.*a.*){50}x{1000000}".to_owned()),
        Grammar::Regex("(a?){5000}a{5000}".to_owned()),
        Grammar::JsonSchema(format!(r#"{{"type": "object", "properties": {{{wide}}}}}"#)),
        Grammar::JsonSchema(nested),
        Grammar::Lark("start: s\ns: s s s | s s | \"a\" | \"\"".to_owned()),
        Grammar::Choice((0..20_000).map(|index| format!("the choice number {index}")).collect()),
    ] {
        let begin = Instant::now();
        let sampling = SamplingParams::default().grammar(Some(grammar.clone()));
        let name: String = format!("{grammar:?}").chars().take(60).collect();
        match engine(&STRANGER, 1).add(options(Method::Pard, 4, sampling)) {
            Err(error) => assert!(matches!(error, Error::Grammar { .. }), "{name}: {error}"),
            Ok(mut sequence) => {
                sequence.start(&prompt()).expect("start");
                for _ in 0..8 {
                    if let Err(error) = sequence.round() {
                        assert!(matches!(error, Error::Grammar { .. }), "{name}: {error}");
                        break;
                    }
                }
            }
        }
        // A bound against hanging, and no measurement.
        assert!(begin.elapsed() < Duration::from_secs(60), "{name}: {:?}", begin.elapsed());
    }
}

/// The rejection rule keeps the distribution that the target has under the grammar, which AR's draws show.
#[test]
fn the_rejection_rule_keeps_the_constrained_distribution() {
    let engine = engine(&STRANGER, 1);
    let grammar = Grammar::Regex("[a-c][d-f][a-c]".to_owned());
    let count = |method, drafts, acceptance| {
        let mut counts = vec![0u32; 27];
        let mut sequence = engine.add(options(method, drafts, SamplingParams::default()).acceptance(acceptance));
        let sequence = sequence.as_mut().expect("a sequence");
        for seed in 0..700 {
            let sampling = SamplingParams::default().temperature(1.3).seed(seed).grammar(Some(grammar.clone()));
            sequence.set_sampling(sampling).expect("options in range");
            let text = text_of(&answer(sequence));
            let [one, two, three] = text.as_bytes() else { panic!("{text}") };
            counts[usize::from(one - b'a') * 9 + usize::from(two - b'd') * 3 + usize::from(three - b'a')] += 1;
        }
        counts
    };
    let alone = count(Method::Ar, 0, AcceptanceRule::Noise);
    for (method, drafts) in [(Method::Pard, 4), (Method::Vsd, 2)] {
        let seen = count(method, drafts, AcceptanceRule::Rejection);
        // Pearson's test of two samples of one size.
        let cells: Vec<f64> = alone
            .iter()
            .zip(&seen)
            .filter(|(one, other)| **one + **other >= 10)
            .map(|(&one, &other)| (f64::from(one) - f64::from(other)).powi(2) / f64::from(one + other))
            .collect();
        let (freedom, statistic) = (cells.len() as f64 - 1.0, cells.iter().sum::<f64>());
        assert!(cells.len() >= 10, "{alone:?}");
        let limit = freedom + 5.0 * (2.0 * freedom).sqrt();
        assert!(statistic <= limit, "{}: {statistic:.1}, {seen:?}, and alone {alone:?}", method.name());
    }
}
