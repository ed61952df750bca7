//! Grammars in GBNF: the texts that an answer may have are those of the grammar, no more and no less.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use pard::Error;
use pard::low_level::grammar::{Constraint, begin};
use pard::text::{ChatTokenizer, Grammar, Tokenizer};

use crate::support::tiny_tokenizer::{TOKENS, build, special_id};

fn tokenizer() -> ChatTokenizer {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokenizer.json");
    build().save(&file, false).expect("a file");
    ChatTokenizer {
        model_name: "tiny".to_owned(),
        tokenizer: Tokenizer::from_file(&file).expect("a tokenizer"),
        stop_tokens: vec![special_id(2)],
        template: None,
        tool_template: None,
        special_tokens: Default::default(),
        suggested: Vec::new(),
        grammars: Default::default(),
    }
}

fn constraint(text: &ChatTokenizer, gbnf: &str) -> Constraint {
    begin(text, &Grammar::Lark(gbnf.to_owned())).unwrap_or_else(|error| panic!("{error}: {gbnf}"))
}

/// Returns `true` if an answer may be `answer`, written a byte at a time.
fn takes(constraint: &mut Constraint, answer: &str) -> bool {
    constraint.restart().expect("a grammar");
    let stop = special_id(2) as usize;
    let allows = |id: usize, constraint: &mut Constraint| {
        constraint.mask(TOKENS).is_ok_and(|mask| mask[id / 32] >> (id % 32) & 1 == 1)
    };
    for id in answer.bytes().map(|byte| BYTES[byte as usize]) {
        if !allows(id as usize, constraint) || constraint.commit(&[id]).is_err() {
            return false;
        }
    }
    allows(stop, constraint)
}

/// The token of each byte.
static BYTES: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let text = tokenizer();
    let id_of = |byte: u8| (0..256).find(|&id| text.tokenizer.bytes(id) == [byte]).expect("a token");
    (0..=255).map(id_of).collect()
});

/// All texts of the characters `alphabet`, up to a length.
fn texts(alphabet: &str, longest: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut begin = 0;
    for _ in 0..longest {
        let end = all.len();
        for index in begin..end {
            all.extend(alphabet.chars().map(|character| format!("{}{character}", all[index])).collect::<Vec<_>>());
        }
        begin = end;
    }
    all
}

/// What is left of texts once a part was taken off their beginnings, in all ways.
type Rests<'a> = Vec<&'a str>;

fn one<'a>(text: &'a str, characters: &str) -> Rests<'a> {
    text.strip_prefix(|c| characters.contains(c)).into_iter().collect()
}

fn then<'a>(rests: Rests<'a>, part: impl Fn(&'a str) -> Rests<'a>) -> Rests<'a> {
    rests.into_iter().flat_map(part).collect()
}

/// Any number of parts, none as well.
fn many<'a>(text: &'a str, part: impl Fn(&'a str) -> Rests<'a>) -> Rests<'a> {
    let (mut rests, mut index) = (vec![text], 0);
    while index < rests.len() {
        for rest in part(rests[index]) {
            if !rests.contains(&rest) {
                rests.push(rest);
            }
        }
        index += 1;
    }
    rests
}

/// `a`, `ab`, or several of them in parentheses.
fn item(text: &str) -> Rests<'_> {
    let nested = then(then(one(text, "("), items), |text| one(text, ")"));
    let short = one(text, "a");
    [then(short.clone(), |text| one(text, "b")), short, nested].concat()
}

fn items(text: &str) -> Rests<'_> {
    then(item(text), |text| many(text, item))
}

fn space(text: &str) -> Rests<'_> {
    many(text, |text| one(text, " \n"))
}

/// A name, or one in parentheses, before white space.
fn term(text: &str) -> Rests<'_> {
    let name = then(one(text, "xy"), |text| many(text, |text| one(text, "xy0")));
    let nested = then(then(then(one(text, "("), space), term), |text| one(text, ")"));
    then([name, nested].concat(), space)
}

fn line(text: &str) -> Rests<'_> {
    then(term(text), |text| one(text, "\n"))
}

fn list(text: &str) -> Rests<'_> {
    let further = |text| then(one(text, "c"), list);
    let inner = |text| [vec![text], then(list(text), |text| many(text, further))].concat();
    then(then(one(text, "["), inner), |text| one(text, "]"))
}

#[test]
fn answers_are_the_texts_of_the_grammar_no_more_and_no_less() {
    type Fits = fn(&str) -> bool;
    let cases: [(&str, &str, usize, Fits); 9] = [
        // What could go on hides nothing that may follow.
        ("root ::= [a-b]* \"b\"", "abc", 5, |text| text.ends_with('b') && !text.contains('c')),
        ("root ::= (\"a\" root \"b\")? [ab]*", "abc", 4, |text| !text.contains('c')),
        ("root ::= \"a\" root \"b\" | \"ab\"?", "ab", 8, |text| {
            let half = text.len() / 2;
            text == format!("{}{}", "a".repeat(half), "b".repeat(half))
        }),
        ("root ::= item+ \"b\"\nitem ::= \"a\" | \"ab\" | \"(\" item+ \")\"", "ab()", 6, |text| {
            items(text).contains(&"b")
        }),
        // White space ends a name, and a line end ends a line.
        (
            "root ::= (term \"\\n\")+\nterm ::= [xy] [xy0]* ws | \"(\" ws term \")\" ws\nws ::= [ \\n]*",
            "x0( \n)",
            5,
            |text| then(line(text), |text| many(text, line)).contains(&""),
        ),
        ("root ::= \"a\"{2} | \"b\"{1,3} \"a\"{2,} | \"c\"{0,1}", "abc", 5, |text| {
            let rest = text.trim_start_matches('b');
            let begins = text.len() - rest.len();
            let is_second = (1..=3).contains(&begins) && rest.len() >= 2 && rest.chars().all(|c| c == 'a');
            ["aa", "", "c"].contains(&text) || is_second
        }),
        (
            "root ::= [^a\\]\\-é] | . \"\\x61\\u0062\" | # a comment\n  \"\\\"\\\\\\n\" two\ntwo ::= (\n\"é\"\n)",
            "ab]-é\\\"\n",
            4,
            |text| {
                let count = text.chars().count();
                let is_other = count == 1 && !["a", "]", "-", "é"].contains(&text);
                is_other || (count == 3 && text.ends_with("ab")) || text == "\"\\\né"
            },
        ),
        // Characters of which the first bytes are the same.
        ("root ::= [é]+ next\nnext ::= [è] next | \"a\"", "éèa", 5, |text| {
            let rest = text.trim_start_matches('é');
            rest.len() < text.len() && rest.trim_start_matches('è') == "a"
        }),
        ("root ::= list | ([a-c] \"]\"){2}\nlist ::= \"[\" (list (\"c\" list)*)? \"]\"", "[c]", 7, |text| {
            text == "c]c]" || list(text).contains(&"")
        }),
    ];
    let text = tokenizer();
    for (gbnf, alphabet, longest, fits) in cases {
        let mut constraint = constraint(&text, gbnf);
        let mut count = 0;
        for answer in texts(alphabet, longest) {
            assert_eq!(takes(&mut constraint, &answer), fits(&answer), "{answer:?} of {gbnf}");
            count += usize::from(fits(&answer));
        }
        assert!(count > 2, "{count} texts of {gbnf}");
    }
}

/// JSON, as grammars of llama.cpp's users have it: long texts within it are one lexeme, so that their masks are cheap.
const JSON: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (
             string ":" ws value
             ("," ws string ":" ws value)*
           )? "}" ws
array  ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws # with escapes
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,15})? ws
ws     ::= ([ \t\n] ws)?
"#;

#[test]
fn a_grammar_of_json_takes_json() {
    let text = tokenizer();
    let mut constraint = constraint(&text, JSON);
    for (answer, is_json) in [
        (r#"{"a": [1, -2.5e+3, {"b\u00e9\n": null}], "the other thing" : "é" , "": {}}"#, true),
        ("{\n\t\"a\" :\n true }", true),
        (r#"{"a": 01}"#, false),
        (r#"{"a": "\x"}"#, false),
        (r#"{"a": [1,]}"#, false),
        ("[1]", false),
    ] {
        assert_eq!(takes(&mut constraint, answer), is_json, "{answer}");
    }
}

#[test]
fn faulty_grammars_are_refused_by_line_and_rule() {
    let text = tokenizer();
    let deep = format!("root ::= {}\"a\"{}", "(".repeat(200), ")".repeat(200));
    let many: String = (0..3000).map(|index| format!("rule{index} ::= \"a\"\n")).collect();
    for (gbnf, part) in [
        ("main ::= \"a\"", "`root`"),
        ("root ::= \"a\" other", "`other`"),
        ("root ::= \"a\"\n\nother ::= [z-a]", "line 3: the range z-a"),
        ("root ::= \"a\"\nroot ::= \"b\"", "two rules `root`"),
        ("root ::= \"a", "line 1: it ends too early"),
        ("root ::= (\"a\"", "`)`"),
        ("root ::= \"a\" )", "`)` is not expected"),
        ("root ::= \"a\"{3,2}", "{n,m}"),
        ("root ::= \"a\"{99999}", "repetitions"),
        ("root ::= \"\\q\"", "\\q"),
        ("root ::= \"\\uD800\"", "hexadecimal"),
        ("root ::= []", "empty"),
        ("root ::= <think> \"a\"", "tokens"),
        (&deep, "parentheses"),
        (&many, "2000 rules"),
    ] {
        let error = begin(&text, &Grammar::Lark(gbnf.to_owned())).map(drop).expect_err(gbnf);
        assert!(matches!(error, Error::Grammar { .. }) && error.to_string().contains(part), "{error} for {gbnf}");
    }
}

/// Grammars that are large once written out, or that mean nothing, are refused or answered within bounds.
#[test]
fn hostile_grammars_are_bounded() {
    let doubled = |last: &str| {
        let rules: String = (0..60).map(|index| format!("r{index} ::= r{0} r{0}\n", index + 1)).collect();
        format!("root ::= r0 | \"(\" root \")\"\n{rules}r60 ::= {last}\n")
    };
    let optional = format!("root ::= {} | \"(\" root \")\"", "[ab]? ".repeat(3000));
    let chain: String = (0..1900).map(|index| format!("r{index} ::= r{}\n", index + 1)).collect();
    let repeated = "root ::= ((([ab]{0,2000}){0,2000}){0,2000}){0,2000} | \"(\" root \")\"";
    let text = tokenizer();
    for gbnf in [
        &*doubled("\"a\""),
        &*doubled("[ab]*"),
        &*optional,
        repeated,
        &*format!("root ::= r0\n{chain}r1900 ::= \"a\""),
        "root ::= root",
        "root ::= root root | \"\"",
        "root ::= other \"a\"\nother ::= other other | \"\"",
    ] {
        let (start, name) = (Instant::now(), gbnf.get(..40).unwrap_or(gbnf));
        match begin(&text, &Grammar::Lark(gbnf.to_owned())) {
            Ok(mut constraint) => drop(takes(&mut constraint, "(a")),
            Err(error) => assert!(matches!(error, Error::Grammar { .. }), "{name}: {error}"),
        }
        // A bound against hanging, and no measurement.
        assert!(start.elapsed() < Duration::from_secs(60), "{name}: {:?}", start.elapsed());
    }
}
