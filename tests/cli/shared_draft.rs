//! A draft without embeddings of its own on the command line.

use std::path::Path;

use serde_json::json;

use super::{MODELS, json_of, name, pard};
use crate::support::shared_draft::SharedDraft;
use crate::support::tiny_model::Recipe;

#[test]
fn a_draft_without_embeddings_runs_beside_its_target_only() {
    let target = name(&MODELS.target);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli").join("shared-draft");
    std::fs::create_dir_all(&folder).expect("a folder for models");
    // The target's own layers, so that all it proposes one by one is accepted.
    SharedDraft::new(&Recipe::llama(11), 400, None).write(&folder);
    let draft = name(&folder);
    let generate = |more: &[&str]| {
        json_of(&[&["generate", "-m", target, "-p", "the other thing", "-n", "40", "--json"], more].concat())
    };
    let alone = generate(&[]);
    let vsd = generate(&["-d", draft, "--method", "vsd", "-k", "4"]);
    assert_eq!((&vsd["rounds"], &vsd["output_ids"]), (&json!(8), &alone["output_ids"]));
    let parallel = generate(&["-d", draft, "-k", "3"]);
    assert_eq!((&parallel["method"], &parallel["output_ids"]), (&json!("pard"), &alone["output_ids"]));

    let why = ["shared-draft", "without embeddings of its own", "-d beside its target"];
    pard(&["generate", "-m", draft, "-p", "the"]).expect_error(1, &why);
    pard(&["tune", "-m", draft]).expect_error(1, &why);

    SharedDraft::new(&Recipe::llama(11), 400, Some(SharedDraft::third(307))).write(&folder);
    let reduced = generate(&["-d", draft, "-k", "3"]);
    assert_eq!(reduced["output_ids"], alone["output_ids"]);
    let shown = json_of(&["inspect", draft, "--json"]);
    assert_eq!((&shown["config"]["shared_embeddings"], &shown["reduced_head"]), (&json!(true), &json!(103)));
    let text = pard(&["inspect", draft]).stdout;
    for part in ["the target's, but for the mask token's row", "103 of the target's 307 rows", "pard_token"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}
