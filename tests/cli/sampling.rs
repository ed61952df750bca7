//! Decoding options on the command line.

use serde_json::{Value, json};

use super::{MODELS, json_of, name, pard};

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
fn options_out_of_range_are_wrong_usage() {
    let target = name(&MODELS.target);
    pard(&["generate", "-m", target, "-p", "x", "--temperature=-1"]).expect_error(2, &["--temperature"]);
    pard(&["generate", "-m", target, "-p", "x", "--seed", "many"]).expect_error(2, &["--seed"]);
}
