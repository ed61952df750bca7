//! Chat templates: rendered as transformers renders them.

use std::collections::BTreeMap;

use pard::text::{ChatTemplate, Message, Rendering};
use pard::{Error, Result};
use proptest::prelude::*;
use serde_json::Value;

use crate::text::tokenizer_folder;

fn answer() -> Rendering {
    Rendering::default()
}

fn closed() -> Rendering {
    Rendering::default().add_generation_prompt(false)
}

fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().map(|&(role, content)| Message::new(role, content)).collect()
}

fn special_tokens() -> BTreeMap<String, String> {
    BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned()), ("eos_token".to_owned(), "</s>".to_owned())])
}

fn render(source: &str, turns: &[(&str, &str)]) -> Result<String> {
    ChatTemplate::new(source, special_tokens())?.render(&messages(turns), answer())
}

/// The value of one expression over a conversation of one turn.
fn value(expression: &str) -> String {
    render(expression, &[("user", " Hi \n")]).unwrap_or_else(|error| panic!("{expression}: {error}"))
}

#[test]
fn blocks_take_their_line_with_them() {
    let source = "
{%- for message in messages %}
    {% if message.role == 'user' %}
U: {{ message.content }}
    {% endif %}
    {# a remark #}
{% endfor %}
  {{ bos_token }}{{ eos_token }}
";
    let text = render(source, &[("user", "a"), ("assistant", "b"), ("user", "c")]).expect("rendering");
    assert_eq!(text, "U: a\nU: c\n  <s></s>");
}

#[test]
fn pythons_methods_and_words_are_there() {
    for (expression, expected) in [
        ("{{ messages[0].content.strip() }}", "Hi"),
        ("{{ messages[0]['content'] | trim }}", "Hi"),
        ("{{ 'a</think>b'.split('</think>')[-1].lstrip('\\n') }}", "b"),
        ("{{ 'abc'.startswith('ab') and 'abc'.endswith('bc') }}", "True"),
        ("{{ none }} {{ true }} {{ false }}", "None True False"),
        ("{{ 'abc'[::-1] }}{{ [1, 2, 3][::-1][0] }}", "cba3"),
        ("{{ undefined_name is defined }}|{{ undefined_name }}|", "False||"),
        ("{{ tools is none }}{{ tools is defined }}{{ documents is none }}", "TrueTrueTrue"),
        (
            "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}\
             {% set ns.n = i %}{% endfor %}{{ ns.n }}",
            "2",
        ),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f('a') }}", "<a>"),
        ("{{ {'a': 1}.get('b', 'no') }}{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "noa1"),
        ("{{ 'x' if add_generation_prompt else 'y' }}{{ 'system' in ['user'] }}", "xFalse"),
        ("a {%- generation -%} b {%- endgeneration -%} c", "abc"),
        ("{% generation %}b{% endgeneration %}", "b"),
        ("{{ '<b>&' }}", "<b>&"),
    ] {
        assert_eq!(value(expression), expected, "{expression}");
    }
}

/// Templates with what Jinja2 makes of each; `tests/data/make_jinja.py` says how.
#[test]
fn templates_render_as_by_jinja2() {
    let pairs: Vec<(String, String)> = serde_json::from_str(include_str!("data/jinja.json")).expect("pairs of texts");
    assert!(pairs.len() > 220);
    for (source, expected) in pairs {
        let text = render(&source, &[("user", " Hi \n"), ("assistant", "Yes<b>&'\"é🦀\n\tx")]);
        assert_eq!(text.unwrap_or_else(|error| panic!("{source}: {error}")), expected, "{source}");
    }
}

#[test]
fn line_ends_of_a_template_are_line_feeds() {
    let source = "{% if true %}\na\n{% endif %}\n{{ 'b\nc' }}\nd\n";
    let expected = render(source, &[]).expect("rendering");
    assert_eq!(expected, "a\nb\nc\nd");
    for end in ["\r\n", "\r"] {
        assert_eq!(render(&source.replace('\n', end), &[]).expect("rendering"), expected);
    }
}

#[test]
fn json_is_pythons() {
    for (expression, expected) in [
        (r#"{{ {"a": [1, 2.5, true, none], "b": {}} | tojson }}"#, r#"{"a": [1, 2.5, true, null], "b": {}}"#),
        (r#"{{ "<é 🦀'\"\\\n\t" | tojson }}"#, r#""<é 🦀'\"\\\n\t""#),
        (r#"{{ [] | tojson }}{{ [{"a": 1}, []] | tojson(indent=2) }}"#, "[][\n  {\n    \"a\": 1\n  },\n  []\n]"),
        (r#"{{ "é" | tojson(ensure_ascii=False) }}"#, "\"é\""),
        (r#"{{ "é🦀" | tojson(ensure_ascii=True) }}"#, r#""\u00e9\ud83e\udd80""#),
        (r#"{{ {"b": 1, "a": 1e-7} | tojson(separators=(",", ":"), sort_keys=True) }}"#, r#"{"a":1e-07,"b":1}"#),
    ] {
        assert_eq!(value(expression), expected, "{expression}");
    }
}

#[test]
fn the_date_is_todays() {
    let text = value("{{ strftime_now('%d %b %Y|%Y-%m-%d|%-d %B, %A %H:%M:%S %%') }}");
    let parts: Vec<&str> = text.split('|').collect();
    let (year, month) = (&parts[1][..4], &parts[1][5..7]);
    assert!(year.parse::<u32>().is_ok_and(|year| (2024..2200).contains(&year)), "{text}");
    assert!(month.parse::<u32>().is_ok_and(|month| (1..=12).contains(&month)), "{text}");
    assert!(parts[0].ends_with(year) && parts[0].starts_with(&parts[1][8..10]), "{text}");
    assert!(parts[2].ends_with('%'), "{text}");
}

#[test]
fn a_template_that_refuses_or_fails_says_why() {
    let refusal = |source: &str| match render(source, &[("user", "a")]) {
        Err(Error::Template { reason }) => reason,
        other => panic!("{source}: {other:?}"),
    };
    assert_eq!(refusal("{{ raise_exception('Roles must alternate!') }}"), "the template says: Roles must alternate!");
    for source in [
        "{% if %}",
        "{{ messages.nothing.more }}",
        "{{ 1 / 0 }}",
        "{% unknown %}",
        "{{ strftime_now('%Q') }}",
        "{{ nothing() }}",
    ] {
        assert!(!refusal(source).is_empty());
    }
    // Python's errors, which minijinja answers with some value.
    for (source, word) in [
        ("{{ none < 1 }}", "none with number"),
        ("{{ 1 >= none }}", "number with none"),
        ("{{ 'a' < 1 }}", "string with number"),
        ("{{ {} < {} }}", "map with map"),
        ("{{ [1, none] < [1, 2] }}", "none with number"),
        ("{{ 1 < undefined_name < 3 }}", "undefined"),
        ("{{ 1 in 'abc' }}", "looked for in a string"),
        ("{{ 1 in 2 }}", "not iterable"),
        ("{{ '%s' % (1, 2) }}", "fewer values than the 2"),
        ("{{ '%s %s' % 'a' }}", "fewer values than it needs"),
        ("{{ '%s' | format('a', 'b') }}", "fewer values than the 2"),
        ("{{ '%(a)s' % {'b': 1} }}", "has no \"a\""),
        ("{{ '%é' % 1 }}", "%é is not known"),
        ("{{ '%2000d' % 1 }}", "wider than 1000"),
        ("{{ '{0[é]}'.format({'é': 1}) }}", "for ASCII alone"),
        ("{{ '{:>4}'.format('é') }}", "for ASCII alone"),
        ("{{ none % 2 }}", "none by number"),
        ("{{ 5 % 0 }}", "zero"),
        ("{% for a in none %}{% endfor %}", "not iterable"),
        ("{{ none | list }}", "not iterable"),
        ("{{ none[1:] }}", "no slices"),
        ("{{ messages[0].nothing[:2] }}", "no slices"),
        ("{{ undefined_name | int }}", "undefined"),
        ("{{ '\\ud83d' }}", "stands for no letter"),
        ("{{ '\\N{BULLET}' }}", "by its name"),
        ("{{ messages | pprint }}", "pprint"),
    ] {
        assert!(refusal(source).contains(word), "{source}: {}", refusal(source));
    }
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(1000), ")".repeat(1000));
    assert!(refusal(&deep).contains("deep"));
    for part in ["[0]", ".a", " | upper", " and a", " if a", "[:]", " % a", " < a"] {
        assert!(!refusal(&format!("{{{{ a{} }}}}", part.repeat(100_000))).is_empty());
    }
    let chain = format!("{{{{ messages{}.role }}}}", "[:9]".repeat(100) + "[0]");
    assert_eq!(render(&chain, &[("user", "a")]).expect("rendering"), "user");
    // Neither time nor memory without bound.
    refusal("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}");
    refusal("{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}");
    refusal("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
}

#[test]
fn a_template_that_wants_a_text_in_parts_gets_it_so() {
    let parts =
        "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}{% endif %}{% endfor %}";
    let turn =
        |content: &str| format!("{{% for message in messages %}}{{{{ message.role }}}}: {content};{{% endfor %}}");
    let either =
        format!("{{% if message.content is string %}}{{{{ message.content }}}}{{% else %}}{parts}{{% endif %}}");
    let refuses = "{% if message.content is string %}{{ raise_exception('no text') }}{% endif %}".to_owned() + parts;
    for content in [parts, "{{ message.content[0].text }}", &either, &refuses, "{{ message.content }}{{ 'text'[:0] }}"]
    {
        let text = render(&turn(content), &[("user", "a b"), ("assistant", "")]);
        assert_eq!(text.expect("rendering"), "user: a b;assistant: ;", "{content}");
    }
}

#[test]
fn thinking_is_passed_on_only_when_asked_for() {
    let source = "{% if enable_thinking is defined %}{{ enable_thinking }}{% else %}unsaid{% endif %}";
    let template = ChatTemplate::new(source, BTreeMap::new()).expect("a template");
    for (enable_thinking, expected) in [(None, "unsaid"), (Some(true), "True"), (Some(false), "False")] {
        let text = template.render(&[], answer().enable_thinking(enable_thinking)).expect("rendering");
        assert_eq!(text, expected);
    }
}

#[test]
fn variables_are_passed_on_and_change_none_of_the_conversations() {
    let source = "{{ effort }} {{ list[1] }} {{ flag }} {{ bos_token }} {{ messages[0].content }}";
    let variables =
        serde_json::json!({ "effort": "low", "list": [1, 2.5], "flag": true, "bos_token": "B", "messages": [] });
    let rendering = answer().variables(variables.as_object().expect("an object").clone());
    let text = ChatTemplate::new(source, special_tokens())
        .and_then(|template| template.render(&messages(&[("user", "a")]), rendering));
    assert_eq!(text.expect("rendering"), "low 2.5 True B a");
}

proptest! {
    #[test]
    fn no_template_panics(
        source in "(\\{%|%\\}|\\{\\{|\\}\\}|for|in|if|else|end|messages|content|\\[|\\]|'|\\||-|[a-z .0-9:()]){0,24}",
    ) {
        if let Ok(template) = ChatTemplate::new(&source, special_tokens()) {
            let _ = template.render(&messages(&[("user", "a")]), answer());
        }
    }

    #[test]
    fn contents_come_through_unchanged(content in ".{0,40}") {
        prop_assert_eq!(render("{{ messages[0].content }}", &[("user", &content)]).unwrap(), content);
    }
}

/// The template of tests/data/tokenizers/`folder`.
fn template_of(folder: &str) -> ChatTemplate {
    let path = tokenizer_folder(folder).join("tokenizer_config.json");
    let config: Value = serde_json::from_slice(&std::fs::read(path).expect("reading")).expect("JSON");
    let tokens = ["bos_token", "eos_token"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), config[name].as_str()?.to_owned())));
    let source = config["chat_template"].as_str().expect("a template");
    ChatTemplate::new(source, tokens.collect()).expect("compiling")
}

#[test]
fn qwen3s_template_renders_as_in_transformers() {
    let template = template_of("qwen3");
    let question = messages(&[("user", "Who are you?")]);
    let asked = "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n";
    for (enable_thinking, extra) in [(None, ""), (Some(true), ""), (Some(false), "<think>\n\n</think>\n\n")] {
        let text = template.render(&question, answer().enable_thinking(enable_thinking)).expect("rendering");
        assert_eq!(text, format!("{asked}{extra}"));
    }
    // Earlier thoughts are dropped, the last answer's are kept, within the text or beside it.
    let mut talk = messages(&[
        ("system", "s"),
        ("user", "a"),
        ("assistant", "<think>\nhmm\n</think>\n\nb"),
        ("user", "c"),
        ("assistant", "<think>\nlast\n</think>\n\ndone"),
    ]);
    let text = template.render(&talk, closed()).expect("rendering");
    let expected = "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n\
        <|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n\
        <|im_start|>assistant\n<think>\nlast\n</think>\n\ndone<|im_end|>\n";
    assert_eq!(text, expected);
    for (index, thoughts, content) in [(2, "hmm", "b"), (4, "last", "done")] {
        (talk[index].reasoning_content, talk[index].content) = (Some(thoughts.to_owned()), content.to_owned());
    }
    assert_eq!(template.render(&talk, closed()).expect("rendering"), expected);
}

#[test]
fn llama3s_template_renders_as_in_transformers() {
    let template = template_of("llama3");
    let text = template
        .render(&messages(&[("system", "Be terse. "), ("user", "  Hi\n there  ")]), answer())
        .expect("rendering");
    let expected = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe terse.<|eot_id|>\
        <|start_header_id|>user<|end_header_id|>\n\nHi\n there<|eot_id|>\
        <|start_header_id|>assistant<|end_header_id|>\n\n";
    assert_eq!(text, expected);
}

/// Values within values, deeper than a usual stack can drop or write.
#[test]
fn values_as_deep_as_the_steps_allow_are_no_fault() {
    let nested = |rounds: usize, end: &str| {
        let (open, close) = ("[".repeat(60), "]".repeat(60));
        let deeper = format!("{{% set ns.x = {open}ns.x{close} %}}");
        format!("{{% set ns = namespace(x=[]) %}}{{% for i in range({rounds}) %}}{deeper}{{% endfor %}}{end}")
    };
    let turns = [("user", "a")];
    assert_eq!(render(&nested(7000, "done"), &turns).expect("dropped"), "done");
    assert_eq!(render(&nested(7000, "{{ ns.x }}"), &turns).expect("written").len(), 2 * (60 * 7000 + 1));
    let error = render(&nested(100_000, "done"), &turns).expect_err("too many steps");
    assert!(error.to_string().contains("fuel"), "{error}");
}
