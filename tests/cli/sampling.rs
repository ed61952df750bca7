//! Decoding options on the command line.

use serde_json::{Value, json};

use super::{MODELS, json_of, name, pard, with_input};

#[test]
fn a_seed_gives_the_same_text_by_every_method() {
    let target = name(&MODELS.target);
    let generate = |more: &[&str]| {
        json_of(&[&["generate", "-m", target, "-p", "the other thing", "-n", "40", "--json"], more].concat())
    };
    let drawn = ["-t", "0.9", "--seed", "7"];
    let ar = generate(&drawn);
    assert_eq!(ar["sampling"]["seed"], json!(7));
    for more in [&["-d", target, "-k", "4"][..], &["-d", name(&MODELS.draft)]] {
        assert_eq!(generate(&[more, &drawn[..]].concat())["output_ids"], ar["output_ids"], "{more:?}");
    }
    let greedy = generate(&[]);
    assert_ne!(greedy["output_ids"], ar["output_ids"]);
    assert_ne!(generate(&["-t", "0.9", "--seed", "8"])["output_ids"], ar["output_ids"]);
    assert_eq!(generate(&["-t", "0", "--seed", "8"])["output_ids"], greedy["output_ids"]);

    let bench =
        json_of(&["bench", "-m", target, "-d", target, "-k", "3", "-n", "12", "--limit", "2", "--json", "-t", "1"]);
    let identical = |run: &Value| run["identical"] == true;
    assert!(bench["methods"].as_array().expect("methods").iter().all(identical), "{bench}");
    assert_eq!(bench["sampling"]["temperature"], 1.0);
}

#[test]
fn options_change_the_text_and_no_method_does() {
    let target = name(&MODELS.target);
    let generate = |more: &[&str]| {
        json_of(&[&["generate", "-m", target, "-p", "the other thing", "-n", "30", "--json"], more].concat())
    };
    let drawn = ["-t", "0.9", "--seed", "7"];
    let all = [
        &drawn[..],
        &[
            "--top-k",
            "50",
            "--top-p",
            "0.9",
            "--min-p",
            "0.02",
            "--repetition-penalty",
            "1.2",
            "--logit-bias",
            "9=-1.5",
        ],
        &["--presence-penalty", "0.2", "--frequency-penalty", "-0.1", "--ban", "40,41", "--logit-bias", "8=2"],
    ]
    .concat();
    let alone = generate(&all);
    assert_ne!(alone["output_ids"], generate(&drawn)["output_ids"], "the options change the text");
    let sampling = &alone["sampling"];
    assert_eq!(sampling["logit_bias"], json!([[9, -1.5], [8, 2.0]]));
    assert_eq!(sampling["banned"], json!([40, 41]));
    let draft = name(&MODELS.draft);
    let stand_ins = &["-d", draft, "-k", "5", "--with-ngrams"];
    for more in [&["-d", draft, "-k", "5"][..], stand_ins, &["--method", "ngram", "-k", "4"], &["--method", "ngram"]] {
        assert_eq!(generate(&[more, &all[..]].concat())["output_ids"], alone["output_ids"], "{more:?}");
    }
    let ngram = generate(&["--method", "ngram", "-k", "6", "--ngram", "2,2", "--logit-bias", "19=1000"]);
    assert_eq!(ngram["method"], "ngram");
    assert!(ngram["tokens_per_round"].as_f64() > Some(3.0), "one token over and over: {ngram}");

    let chances =
        generate(&[&["-d", target, "-k", "4", "--method", "vsd", "--acceptance", "rejection"], &drawn[..]].concat());
    assert_eq!(chances["acceptance"], "rejection");
    assert_eq!(chances["accepted_per_position"], json!([1.0, 1.0, 1.0, 1.0]), "a perfect draft");

    let bench =
        json_of(&["bench", "-m", target, "-n", "12", "--limit", "2", "--json", "--methods", "ar,ngram", "-k", "3"]);
    assert!(bench["methods"].as_array().expect("methods").iter().all(|run| run["identical"] == true), "{bench}");
    assert_eq!(bench["methods"][1]["method"], "ngram");
    let bench = json_of(&[
        "bench",
        "-m",
        target,
        "-d",
        draft,
        "-n",
        "12",
        "--limit",
        "1",
        "--json",
        "-k",
        "3",
        "--with-ngrams",
    ]);
    assert!(bench["methods"].as_array().expect("methods").iter().all(|run| run["identical"] == true), "{bench}");
    let names: Vec<&str> =
        bench["methods"].as_array().expect("methods").iter().filter_map(|run| run["method"].as_str()).collect();
    assert_eq!(names, ["ar", "vsd", "vsd+ngram", "pard", "pard+ngram"]);
}

#[test]
fn log_probabilities_are_reported_of_every_token() {
    let target = name(&MODELS.target);
    let ask =
        ["generate", "-m", target, "-p", "the other thing", "-n", "9", "--logprobs", "2", "-d", target, "-k", "3"];
    let answer = json_of(&[&ask[..], &["--json"]].concat());
    let logprobs = answer["logprobs"].as_array().expect("log-probabilities");
    let ids = |field: &str| -> Vec<&Value> { logprobs.iter().map(|one| &one[field]).collect() };
    assert_eq!(ids("id"), answer["output_ids"].as_array().expect("ids").iter().collect::<Vec<_>>());
    for one in logprobs {
        let top = one["top"].as_array().expect("the likeliest");
        assert_eq!(top.len(), 2, "{one}");
        // The likeliest one is what greedy decoding takes.
        assert_eq!([&one["id"], &one["logprob"], &one["text"]], [&top[0]["id"], &top[0]["logprob"], &top[0]["text"]]);
        assert!(top[1]["logprob"].as_f64() <= top[0]["logprob"].as_f64() && top[0]["logprob"].as_f64() <= Some(0.0));
    }
    let told = pard(&ask);
    let lines = told.stderr.lines().filter(|line| line.contains("  of  ")).count();
    assert_eq!(lines, logprobs.len(), "{}", told.stderr);
    let silent = json_of(&["generate", "-m", target, "-p", "the other thing", "-n", "9", "--json"]);
    assert_eq!((&silent["logprobs"], &silent["output_ids"]), (&Value::Null, &answer["output_ids"]));
}

#[test]
fn chat_takes_the_same_options() {
    let target = name(&MODELS.target);
    let say = |more: &[&str]| {
        let ended =
            with_input(&[&["chat", "-m", target, "-n", "12", "--no-history"], more].concat(), b"the other thing\n");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended
    };
    let plain = say(&[]);
    let options = ["--ban", "40,41", "--logit-bias", "19=1000", "--frequency-penalty", "80", "--logprobs", "1"];
    let changed = say(&options);
    assert_ne!(plain.stdout, changed.stdout);
    assert_eq!(changed.stderr.matches("  of  ").count(), 12, "{}", changed.stderr);
    assert_eq!(say(&[&options[..], &["--method", "ngram"]].concat()).stdout, changed.stdout);
}

#[test]
fn options_out_of_range_are_wrong_usage() {
    let target = name(&MODELS.target);
    pard(&["generate", "-m", target, "-p", "x", "--temperature=-1"]).expect_error(2, &["--temperature"]);
    pard(&["generate", "-m", target, "-p", "x", "--seed", "many"]).expect_error(2, &["--seed"]);
    let refused = |more: &[&str], parts: &[&str]| {
        pard(&[&["generate", "-m", target, "-p", "x"], more].concat()).expect_error(2, parts);
    };
    refused(&["--logit-bias", "3:1"], &["--logit-bias"]);
    refused(&["--top-p", "1.5"], &["--top-p: ", "1.5"]);
    refused(&["--top-p", "0"], &["top-p", "1 leaves no token out"]);
    refused(&["--min-p", "-0.1"], &["min-p", "-0.1"]);
    refused(&["--repetition-penalty", "0"], &["--repetition-penalty", "0"]);
    refused(&["--ban", "3,9999"], &["--ban", "9999", "307"]);
    refused(&["--logit-bias", "9999=1"], &["--logit-bias", "9999"]);
    refused(&["--logprobs", "21"], &["--logprobs", "20"]);
    refused(&["--stop", ""], &["--stop"]);
    refused(&["--min-tokens", "5", "-n", "3"], &["--min-tokens: ", "5", "3"]);
    refused(&["--method", "ngram", "--ngram", "1,2"], &["--ngram: "]);
    refused(&["--with-ngrams"], &["--with-ngrams", "draft"]);
    refused(&["--method", "ngram", "--acceptance", "rejection"], &["acceptance", "noise"]);
}
