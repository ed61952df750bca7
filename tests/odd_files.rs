//! What people's folders and files hold beside a model in its usual form: biases that are not usual, tokens in other places,
//! GGUF files, adapters, shards that are missing, and files that are not what they are called.

use std::path::{Path, PathBuf};

use pard::Error;
use pard::checkpoint::{DraftFiles, ModelFiles};
use pard::low_level::ops::WeightFormat;
use pard::model::{MemoryPlan, WeightDtype};
use pard::text::{Message, Rendering, Special, Tool};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::gguf::writer::small_llama;
use crate::safetensors::serialised;
use crate::support::tiny_model::{Recipe, Stored, write_json, write_safetensors};
use crate::support::tiny_tokenizer::{TOKENS, special_id};

/// A folder with the model of `recipe`; it lives as long as the first of the two.
fn folder(recipe: &Recipe) -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a folder");
    let path = parent.path().to_owned();
    recipe.write(&path);
    (parent, path)
}

fn refusal(path: &Path) -> String {
    ModelFiles::open(path).err().expect("it is not to be opened").to_string()
}

/// The plan of what `path` holds, or what is wrong with it.
fn planned(path: &Path) -> Result<MemoryPlan, Error> {
    let files = DraftFiles::open(path)?;
    MemoryPlan::new(&files.config, &*files.checkpoint, WeightDtype::Compact, None)
}

#[test]
fn a_tensor_that_nothing_uses_is_named() {
    let recipe = Recipe::llama(3);
    let hidden = recipe.config.hidden_size;
    for (name, is_used) in [
        ("model.layers.1.self_attn.o_proj.bias", false),
        ("model.layers.0.self_attn.q_proj.bias", false),
        ("model.layers.2.mlp.down_proj.bias", false),
        ("model.layers.0.input_layernorm.bias", false),
        ("model.layers.0.self_attn.q_norm.weight", false),
        ("model.layers.7.input_layernorm.weight", false),
        ("model.norm.bias", false),
        ("lm_head.bias", false),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", true),
        ("score.weight", true),
    ] {
        let (_parent, path) = folder(&recipe);
        let mut tensors = recipe.tensors();
        tensors.insert(name.to_owned(), Stored { shape: vec![hidden], values: vec![0.5; hidden] });
        write_safetensors(&path, &tensors, 1, WeightFormat::F32);
        match planned(&path) {
            Ok(_) => assert!(is_used, "{name}"),
            Err(Error::Config { field, .. }) => assert!(!is_used && field == name, "{name}: {field}"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
    // Types that no weight has make no difference.
    for (name, is_used) in [("model.layers.1.self_attn.o_proj.bias", false), ("d2t", true)] {
        let (_parent, path) = folder(&recipe);
        let other = serialised(&[(name, Dtype::F64, vec![2], vec![0; 16])]);
        std::fs::rename(path.join("model.safetensors"), path.join("a.safetensors")).expect("renaming");
        std::fs::write(path.join("b.safetensors"), other).expect("writing");
        match planned(&path) {
            Ok(_) => assert!(is_used, "{name}"),
            Err(error) => assert!(!is_used && error.to_string().contains(name), "{error}"),
        }
    }
    let file = tempfile::NamedTempFile::with_suffix(".gguf").expect("a file");
    for (name, named) in [
        ("blk.1.attn_output.bias", "model.layers.1.self_attn.o_proj.bias"),
        ("blk.0.ffn_up.bias", "model.layers.0.mlp.up_proj.bias"),
        ("blk.0.attn_q_norm.bias", "model.layers.0.self_attn.q_norm.bias"),
        ("blk.0.post_attention_norm.weight", "blk.0.post_attention_norm.weight"),
        ("output_norm.bias", "output_norm.bias"),
        ("token_embd_norm.weight", "token_embd_norm.weight"),
    ] {
        std::fs::write(file.path(), small_llama().counting(name, &[64]).bytes()).expect("writing");
        match planned(file.path()) {
            Err(Error::Config { field, .. }) => assert_eq!(field, named),
            other => panic!("{name}: {:?}", other.err()),
        }
    }
}

#[test]
fn a_head_of_its_own_counts_though_it_is_said_to_be_tied() {
    let recipe = Recipe::qwen2(4);
    let (_parent, path) = folder(&recipe);
    let mut tensors = recipe.tensors();
    let embedding = &tensors["model.embed_tokens.weight"];
    let mut head = Stored { shape: embedding.shape.clone(), values: embedding.values.clone() };
    tensors.insert("lm_head.weight".to_owned(), Stored { shape: head.shape.clone(), values: head.values.clone() });
    write_safetensors(&path, &tensors, 1, WeightFormat::F32);
    assert!(ModelFiles::open(&path).expect("opening").config.tied_head, "the same twice");
    *head.values.last_mut().expect("values") += 1.0;
    tensors.insert("lm_head.weight".to_owned(), head);
    write_safetensors(&path, &tensors, 1, WeightFormat::F32);
    assert!(!ModelFiles::open(&path).expect("opening").config.tied_head, "another head");
}

#[test]
fn a_model_that_was_saved_without_its_head_opens() {
    let recipe = Recipe::qwen2(4);
    let (_parent, path) = folder(&recipe);
    let bare = |(name, tensor): (String, Stored)| (name.trim_start_matches("model.").to_owned(), tensor);
    write_safetensors(&path, &recipe.tensors().into_iter().map(bare).collect(), 1, WeightFormat::F32);
    planned(&path).expect("it is whole");
}

/// Ids of the tokens in `<|im_start|>a<one> <two>`, once `write` has changed the folder's files; and the names and stop tokens.
fn tokens(write: impl Fn(&Path)) -> (Vec<u32>, ModelFiles) {
    let (_parent, path) = folder(&Recipe::llama(5));
    write(&path);
    let files = ModelFiles::open(&path).expect("opening");
    (files.text.tokenizer.encode("<|im_start|>a<one> <two>", Special::Keep).expect("encoding"), files)
}

#[test]
fn tokens_that_other_files_list_are_single_tokens() {
    let (plain, _) = tokens(|_| {});
    let single = |ids: &[u32], id: u32| ids.contains(&id);
    let [one, two] = [TOKENS as u32, TOKENS as u32 + 1];
    assert!(!single(&plain, one) && !single(&plain, two));
    let config = |value: Value| move |path: &Path| write_json(&path.join("tokenizer_config.json"), &value);
    let listed = json!({"277": {"content": "<two>", "lstrip": true}, "276": {"content": "<one>", "special": true}});
    let (ids, files) = tokens(config(json!({ "added_tokens_decoder": listed, "eos_token": "<one>" })));
    assert_eq!(ids, [special_id(1), plain[1], one, two], "blanks before <two> belong to it");
    assert!(files.text.tokenizer.is_special(one) && !files.text.tokenizer.is_special(two));
    assert!(files.text.stop_tokens.contains(&one));

    let (ids, _) = tokens(config(json!({"additional_special_tokens": ["<one>", {"content": "<two>"}]})));
    assert!(single(&ids, one) && single(&ids, two));
    let (ids, files) =
        tokens(config(json!({"eos_token": {"content": "<one>"}, "extra_special_tokens": {"image_token": "<two>"}})));
    assert!(single(&ids, one) && single(&ids, two));
    assert_eq!(files.text.special_tokens["image_token"], "<two>");

    // The files that older tools write.
    let (ids, files) = tokens(|path| {
        write_json(&path.join("special_tokens_map.json"), &json!({"bos_token": "<one>", "cls_token": "<two>"}));
    });
    assert!(single(&ids, one) && single(&ids, two));
    assert_eq!(
        (&*files.text.special_tokens["bos_token"], &*files.text.special_tokens["cls_token"]),
        ("<one>", "<two>")
    );
    let (ids, _) = tokens(|path| write_json(&path.join("added_tokens.json"), &json!({"<two>": 277, "<one>": 276})));
    assert!(single(&ids, one) && single(&ids, two));
    let (_parent, path) = folder(&Recipe::llama(5));
    write_json(&path.join("tokenizer_config.json"), &json!({"added_tokens_decoder": {"276": {"text": "<one>"}}}));
    assert!(refusal(&path).contains("added_tokens_decoder.276"));
}

/// As `transformers` has it: what tokenizer_config.json lists counts, but not what it says of a role.
#[test]
fn blanks_around_a_token_are_those_of_the_list() {
    let text = "a <|im_start|>  b";
    let ids = |config: Value| {
        let (_, files) = tokens(|path| write_json(&path.join("tokenizer_config.json"), &config));
        files.text.tokenizer.encode(text, Special::Keep).expect("encoding")
    };
    let plain = ids(json!({}));
    let listed = |changes: Value| {
        let mut token = json!({ "content": "<|im_start|>", "special": true, "normalized": false });
        token.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        token
    };
    let list = |changes: Value| json!({ "added_tokens_decoder": { special_id(1).to_string(): listed(changes) } });
    assert_eq!(ids(list(json!({}))), plain);
    assert_eq!(ids(json!({ "bos_token": listed(json!({ "rstrip": true })) })), plain);
    assert_eq!(ids(list(json!({ "rstrip": true }))).len(), plain.len() - 2);
    assert_eq!(ids(list(json!({ "lstrip": true, "rstrip": true }))).len(), plain.len() - 3);
    let mut with_role = list(json!({ "rstrip": true }));
    with_role["bos_token"] = json!("<|im_start|>");
    assert_eq!(ids(with_role).len(), plain.len() - 2);
}

#[test]
fn the_end_of_a_turn_that_a_template_writes_ends_answers() {
    let ends = |template: &str| {
        let config = json!({ "chat_template": template, "eos_token": "<|endoftext|>" });
        let (_, files) = tokens(|path| {
            write_json(&path.join("tokenizer_config.json"), &config);
            write_json(&path.join("generation_config.json"), &json!({ "eos_token_id": special_id(0) }));
        });
        files.text.stop_tokens
    };
    assert_eq!(ends("{{ messages }}<|im_end|>"), [special_id(0), special_id(2)]);
    assert_eq!(ends("{{ messages }}"), [special_id(0)]);
    assert_eq!(ends("{{ messages }}<|eot_id|>"), [special_id(0)], "a text that is no token ends nothing");
}

#[test]
fn conversations_with_tools_take_their_own_template() {
    let tool = Tool::from_json(&json!({"function": {"name": "look"}})).expect("a tool");
    let told = |files: &ModelFiles| {
        let text = |tokens: Vec<u32>| tokens.iter().flat_map(|&id| files.text.tokenizer.bytes(id)).collect::<Vec<u8>>();
        let with =
            |tools: &[Tool]| files.text.chat_tokens_with_tools(&[Message::user("a")], tools, Rendering::default());
        [&[][..], std::slice::from_ref(&tool)].map(|tools| text(with(tools).expect("tokens")))
    };
    let (plain, of_tools) = ("plain {{ messages[0].content }}", "{{ tools | length }} tools");
    let named = |name: &str, template: &str| json!({ "name": name, "template": template });
    let list = json!([named("default", plain), named("tool_use", of_tools)]);
    for template in [list, json!({ "default": plain, "tool_use": of_tools })] {
        let config = json!({ "chat_template": template });
        let (_, files) = tokens(|path| write_json(&path.join("tokenizer_config.json"), &config));
        assert_eq!(told(&files), [b"plain a", &b"1 tools"[..]]);
    }
    let (_, files) = tokens(|path| {
        let further = path.join("additional_chat_templates");
        std::fs::create_dir(&further).expect("a folder");
        std::fs::write(further.join("tool_use.jinja"), of_tools).expect("writing");
        std::fs::write(path.join("chat_template.jinja"), plain).expect("writing");
    });
    assert_eq!(told(&files), [b"plain a", &b"1 tools"[..]]);
    let file = tempfile::NamedTempFile::with_suffix(".gguf").expect("a file");
    let writer = small_llama().key("tokenizer.chat_template", plain).key("tokenizer.chat_template.tool_use", of_tools);
    std::fs::write(file.path(), writer.bytes()).expect("writing");
    assert_eq!(told(&ModelFiles::open(file.path()).expect("opening")), [b"plain a", &b"1 tools"[..]]);
}

#[test]
fn a_folder_with_gguf_files_is_understood() {
    let parent = tempfile::tempdir().expect("a folder");
    let path = parent.path();
    let bytes = small_llama().bytes();
    std::fs::write(path.join("a.gguf"), &bytes).expect("writing");
    // Repositories of GGUF files have these beside them.
    write_json(&path.join("config.json"), &json!({"model_type": "llama"}));
    std::fs::write(path.join("mmproj-a.gguf"), "not a model").expect("writing");
    assert_eq!(ModelFiles::open(path).expect("opening").name(), "Small");
    std::fs::write(path.join("b.GGUF"), &bytes).expect("writing");
    let refused = refusal(path);
    assert!(refused.contains("a.gguf, b.GGUF") && !refused.contains("mmproj"), "{refused}");
    for file in ["a.gguf", "b.GGUF"] {
        std::fs::remove_file(path.join(file)).expect("removing");
    }
    for part in ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"] {
        std::fs::write(path.join(part), &bytes).expect("writing");
    }
    assert_eq!(ModelFiles::open(path).expect("opening").name(), "Small", "the first part");
}

#[test]
fn adapters_and_missing_shards_are_named() {
    let parent = tempfile::tempdir().expect("a folder");
    write_json(&parent.path().join("adapter_config.json"), &json!({"peft_type": "LORA"}));
    let file = tempfile::NamedTempFile::with_suffix(".gguf").expect("a file");
    std::fs::write(file.path(), small_llama().key("general.type", "adapter").bytes()).expect("writing");
    let (_parent, beside) = folder(&Recipe::llama(6));
    write_json(&beside.join("adapter_config.json"), &json!({"peft_type": "LORA"}));
    for path in [parent.path(), file.path(), &beside] {
        let refused = refusal(path);
        assert!(refused.contains("LoRA") && refused.contains("merge"), "{refused}");
    }

    for (there, missing) in [
        (
            &["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"][..],
            "model-00002-of-00003.safetensors",
        ),
        (&["model-00002-of-00002.safetensors"], "model-00001-of-00002.safetensors"),
        (&["model-00001-of-99999999999.safetensors"], "model-00002-of-99999999999.safetensors"),
    ] {
        let (_parent, path) = folder(&Recipe::llama(6));
        let whole = std::fs::read(path.join("model.safetensors")).expect("reading");
        std::fs::remove_file(path.join("model.safetensors")).expect("removing");
        for file in there {
            std::fs::write(path.join(file), &whole).expect("writing");
        }
        let refused = refusal(&path);
        assert!(refused.contains(missing), "{refused}");
    }
}

#[test]
fn files_that_are_not_what_they_are_called_are_told() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
    let page = "\n<!DOCTYPE html><html><body>Not found</body></html>";
    let zeros = [0; 64];
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03rest of it";
    for (contents, word) in [
        (pointer.as_bytes(), "git lfs pull"),
        (page.as_bytes(), "web page"),
        (&gzip[..], "gzip"),
        (b"", "empty"),
        (&zeros, "zeros"),
        (b"Entry not found", "Entry not found"),
        (b"\xff\xfe{\0}\0", "UTF-16"),
    ] {
        for file in ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"] {
            let (_parent, path) = folder(&Recipe::llama(6));
            std::fs::write(path.join(file), contents).expect("writing");
            let refused = refusal(&path);
            assert!(refused.contains(word) && refused.contains(file), "{file}: {refused}");
        }
        let file = tempfile::NamedTempFile::with_suffix(".gguf").expect("a file");
        std::fs::write(file.path(), contents).expect("writing");
        assert!(refusal(file.path()).contains(word));
    }
    let (_parent, path) = folder(&Recipe::llama(6));
    std::fs::write(path.join("model.safetensors"), small_llama().bytes()).expect("writing");
    assert!(refusal(&path).contains("GGUF"));
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_file() {
    let (_parent, path) = folder(&Recipe::llama(6));
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        let file = path.join(file);
        let text = std::fs::read_to_string(&file).expect("reading");
        std::fs::write(&file, format!("\u{feff}{text}")).expect("writing");
    }
    assert_eq!(ModelFiles::open(&path).expect("opening").config, Recipe::llama(6).config);
}
