//! Naming a model: alias, path, the hub's cache, the hub.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pard::Error;
use pard::checkpoint::ModelFiles;
use pard::checkpoint::name::Repository;
use pard::checkpoint::options::SourceOptions;
use pard::checkpoint::resolve::{DEFAULT_MODEL, DEFAULT_MODEL_FILE, resolve};

use crate::support::tiny_model::Recipe;

/// Options of a machine that has nothing but `folder`, and no network.
fn offline(folder: &Path) -> SourceOptions<'static> {
    let mut options = SourceOptions::from_variables(|_| None);
    options.cache = Some(folder.join("pard"));
    options.hub_cache = Some(folder.join("hub"));
    options.offline = true;
    options
}

fn options_of(variables: &[(&str, &str)]) -> SourceOptions<'static> {
    SourceOptions::from_variables(|name| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    })
}

fn reason(result: pard::Result<PathBuf>) -> String {
    match result {
        Err(Error::NoModel { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// A repository in the hub's cache, as Hugging Face's tools lay it out.
fn cached(hub_cache: &Path, name: &str, recipe: &Recipe) -> PathBuf {
    let repository = hub_cache.join(format!("models--{}", name.replace('/', "--")));
    let snapshot = repository.join("snapshots").join("0123abc");
    std::fs::create_dir_all(&snapshot).expect("a folder");
    std::fs::create_dir_all(repository.join("refs")).expect("a folder");
    std::fs::write(repository.join("refs").join("main"), "0123abc").expect("writing");
    recipe.write(&snapshot);
    snapshot
}

#[test]
#[cfg(target_os = "linux")]
fn places_follow_the_environment() {
    let home = ("HOME", "/home/user");
    let plain = options_of(&[home]);
    assert_eq!(plain.cache.as_deref(), Some(Path::new("/home/user/.cache/pard")));
    assert_eq!(plain.hub_cache.as_deref(), Some(Path::new("/home/user/.cache/huggingface/hub")));
    assert_eq!((plain.endpoint.as_str(), plain.offline), ("https://huggingface.co", false));

    // Set and empty is as good as not set; compose files and units have no shell that would put the home folder in.
    let names = ["PARD_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "XDG_CACHE_HOME"];
    let empty = options_of(&[&[home][..], &names.map(|name| (name, ""))].concat());
    assert_eq!((&empty.cache, &empty.hub_cache, &empty.endpoint), (&plain.cache, &plain.hub_cache, &plain.endpoint));
    let former = options_of(&[home, ("HUGGINGFACE_HUB_CACHE", "/old"), ("HUGGING_FACE_HUB_TOKEN", "key")]);
    assert_eq!((former.hub_cache.as_deref(), former.token.as_deref()), (Some(Path::new("/old")), Some("key")));
    let in_home = options_of(&[home, ("HF_HOME", "~/models"), ("PARD_CACHE", "~/pard")]);
    assert_eq!(in_home.hub_cache.as_deref(), Some(Path::new("/home/user/models/hub")));
    assert_eq!(in_home.cache.as_deref(), Some(Path::new("/home/user/pard")));

    let xdg = options_of(&[home, ("XDG_CACHE_HOME", "/xdg")]);
    assert_eq!(xdg.cache.as_deref(), Some(Path::new("/xdg/pard")));
    assert_eq!(xdg.hub_cache.as_deref(), Some(Path::new("/xdg/huggingface/hub")));

    let own = options_of(&[
        home,
        ("PARD_CACHE", "/p"),
        ("HF_HOME", "/hf"),
        ("HF_ENDPOINT", "https://mirror/"),
        ("HF_TOKEN", " key\n"),
    ]);
    assert_eq!(own.cache.as_deref(), Some(Path::new("/p")));
    assert_eq!(own.hub_cache.as_deref(), Some(Path::new("/hf/hub")));
    assert_eq!((own.endpoint.as_str(), own.token.as_deref()), ("https://mirror", Some("key")));
    let hub = options_of(&[home, ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/hub")]);
    assert_eq!(hub.hub_cache.as_deref(), Some(Path::new("/hub")));

    for (name, value, offline) in [
        ("HF_HUB_OFFLINE", "1", true),
        ("TRANSFORMERS_OFFLINE", "true", true),
        ("HF_HUB_OFFLINE", "0", false),
        ("HF_HUB_OFFLINE", "", false),
    ] {
        assert_eq!(options_of(&[home, (name, value)]).offline, offline, "{name}={value}");
    }
    let homeless = options_of(&[]);
    assert_eq!((&homeless.cache, &homeless.hub_cache), (&None, &None));
    assert!(reason(resolve(DEFAULT_MODEL, &homeless)).contains("PARD_CACHE"));
    assert!(reason(resolve("owner/name", &homeless)).contains("HF_HOME"));
}

#[test]
fn the_token_is_read_from_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("token"), "secret\n").expect("writing");
    let home = folder.path().to_str().expect("a name");
    assert_eq!(options_of(&[("HF_HOME", home)]).token.as_deref(), Some("secret"));
    assert_eq!(options_of(&[("HF_HOME", home), ("HF_TOKEN", "other")]).token.as_deref(), Some("other"));
}

#[test]
fn the_default_model_lies_in_the_cache_or_is_to_be_fetched() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = offline(folder.path());
    let message = reason(resolve(DEFAULT_MODEL, &options));
    assert!(message.contains(DEFAULT_MODEL_FILE), "{message}");
    let file = folder.path().join("pard").join(DEFAULT_MODEL_FILE);
    std::fs::create_dir(folder.path().join("pard")).expect("a folder");
    std::fs::write(&file, "GGUF").expect("writing");
    assert_eq!(resolve(DEFAULT_MODEL, &options).expect("the file"), file);
}

#[test]
fn a_path_is_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = offline(folder.path());
    let file = folder.path().join("model.gguf");
    std::fs::write(&file, "GGUF").expect("writing");
    for path in [folder.path(), &file] {
        assert_eq!(resolve(path.to_str().expect("a name"), &options).expect("a path"), path);
    }
}

#[test]
fn a_name_that_is_nowhere_says_where_it_was_looked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = offline(folder.path());
    let here = std::env::current_dir().expect("a folder").display().to_string();
    for name in [
        "",
        "nothing",
        "./nothing",
        "../no/thing",
        "a/b/c",
        "owner/model.gguf",
        "/",
        "owner/",
        "/name",
        "a//b",
        "own er/x",
        "owner/..",
        "-a/b",
        "a\\b",
    ] {
        if Path::new(name).exists() {
            continue;
        }
        let message = reason(resolve(name, &options));
        assert!(message.contains(&here) || Path::new(name).is_absolute(), "{name}: {message}");
    }
    let message = reason(resolve("owner/name", &options));
    let hub_cache = folder.path().join("hub").display().to_string();
    assert!(
        message.contains(&hub_cache) && message.contains("HF_HUB_OFFLINE") && message.contains("tokenizer.json"),
        "{message}"
    );
}

#[test]
fn a_repository_in_the_hubs_cache_needs_no_network() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = offline(folder.path());
    let hub_cache = folder.path().join("hub");
    let snapshot = cached(&hub_cache, "owner/Tiny-1.5B_x", &Recipe::qwen3(2));
    assert_eq!(resolve("owner/Tiny-1.5B_x", &options).expect("the snapshot"), snapshot);
    // Broken off: a shard, then the tokenizer, is not there.
    let shard = snapshot.join("model-00002-of-00002.safetensors");
    std::fs::remove_file(&shard).expect("removing");
    assert!(reason(resolve("owner/Tiny-1.5B_x", &options)).contains("model-00002-of-00002.safetensors"));
    std::fs::remove_file(snapshot.join("tokenizer.json")).expect("removing");
    assert!(reason(resolve("owner/Tiny-1.5B_x", &options)).contains("lacks tokenizer.json"));
}

#[test]
fn a_draft_that_uses_its_targets_embeddings_needs_no_tokenizer() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = offline(folder.path());
    let snapshot = cached(&folder.path().join("hub"), "owner/draft", &Recipe::llama(2));
    std::fs::remove_file(snapshot.join("tokenizer.json")).expect("removing");
    assert!(reason(resolve("owner/draft", &options)).contains("lacks tokenizer.json"));
    std::fs::write(snapshot.join("config.json"), r#"{"shared_embeddings": true}"#).expect("writing");
    assert_eq!(resolve("owner/draft", &options).expect("the snapshot"), snapshot);
}

#[test]
fn a_cached_repository_of_one_gguf_file_is_that_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = offline(folder.path());
    let snapshot = cached(&folder.path().join("hub"), "owner/name", &Recipe::llama(2));
    for file in std::fs::read_dir(&snapshot).expect("reading").flatten() {
        std::fs::remove_file(file.path()).expect("removing");
    }
    std::fs::write(snapshot.join("q4.gguf"), "GGUF").expect("writing");
    assert_eq!(resolve("owner/name", &options).expect("the file"), snapshot.join("q4.gguf"));
    std::fs::write(snapshot.join("q4_k_m.gguf"), "GGUF").expect("writing");
    assert_eq!(resolve("owner/name", &options).expect("a file"), snapshot.join("q4_k_m.gguf"));
    assert_eq!(resolve("owner/name:q4.gguf", &options).expect("a file"), snapshot.join("q4.gguf"));
}

#[test]
fn a_tilde_is_the_users_home() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("x.gguf"), "GGUF").expect("writing");
    let options = offline(folder.path()).home(Some(folder.path().to_owned()));
    assert_eq!(resolve("~", &options).expect("home"), folder.path().join(""));
    assert_eq!(resolve("~/x.gguf", &options).expect("a file"), folder.path().join("x.gguf"));
    assert!(reason(resolve("~/y", &options)).contains("no such"));
    assert!(reason(resolve("~other", &options)).contains("no such"));
    assert!(reason(resolve("~/x.gguf", &offline(folder.path()))).contains("no home"));
}

#[test]
fn a_file_of_a_models_folder_stands_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = offline(folder.path());
    Recipe::qwen3(2).write(folder.path());
    let named = |file: &str| resolve(folder.path().join(file).to_str().expect("a name"), &options);
    for file in ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"] {
        assert_eq!(named(file).expect("the folder"), folder.path(), "{file}");
    }
    std::fs::write(folder.path().join("other.safetensors"), "x").expect("writing");
    assert!(reason(named("other.safetensors")).contains("model-00001-of-00002.safetensors"));
}

#[test]
fn a_folder_with_a_lora_adapter_is_called_one() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("adapter_config.json"), r#"{"base_model_name_or_path": "a/b"}"#)
        .expect("writing");
    let error = ModelFiles::open(folder.path()).err().expect("no model").to_string();
    assert!(error.contains("LoRA adapter of a/b"), "{error}");
}

#[test]
fn names_of_repositories_are_taken_apart() {
    let hub = "http://hub.example";
    for (name, id, revision, gguf) in [
        ("owner/name", "owner/name", None, None),
        ("owner/name@main", "owner/name", None, None),
        ("owner/name@v1.0", "owner/name", Some("v1.0"), None),
        ("owner/name@refs/pr/2:Q8_0", "owner/name", Some("refs/pr/2"), Some("Q8_0")),
        ("owner/name:Q4_K_M", "owner/name", None, Some("Q4_K_M")),
        ("owner/name:x/y.gguf", "owner/name", None, Some("x/y.gguf")),
        ("hf.co/owner/name", "owner/name", None, None),
        ("huggingface.co/owner/name:Q8_0", "owner/name", None, Some("Q8_0")),
        ("https://huggingface.co/owner/name", "owner/name", None, None),
        ("https://huggingface.co/owner/name/", "owner/name", None, None),
        ("https://huggingface.co/owner/name/tree/main", "owner/name", None, None),
        ("https://huggingface.co/owner/name/tree/dev?x=y", "owner/name", Some("dev"), None),
        ("https://hf.co/owner/name/blob/main/x-Q8_0.gguf", "owner/name", None, Some("x-Q8_0.gguf")),
        ("https://hf.co/owner/name/resolve/dev/a/x.gguf?download=true", "owner/name", Some("dev"), Some("a/x.gguf")),
        ("https://hf.co/owner/name/resolve/main/model.safetensors", "owner/name", None, None),
        ("http://hub.example/owner/name", "owner/name", None, None),
    ] {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let expected = Repository { id: id.to_owned(), revision: text(revision), gguf: text(gguf) };
        assert_eq!(Repository::parse(name, hub), Ok(Some(expected)), "{name}");
    }
    for name in ["x", "./a/b", "a/b/c", "owner/x.gguf", "C:/models/x", "own er/name", "/owner/name"] {
        assert_eq!(Repository::parse(name, hub), Ok(None), "{name}");
    }
    for (name, word) in [
        ("https://example.com/owner/name", "Hugging Face"),
        ("https://huggingface.co/datasets/owner/name", "datasets"),
        ("https://huggingface.co/owner", "owner/name"),
        ("https://huggingface.co/owner/name/resolve/main", "neither"),
        ("https://huggingface.co/owner/name/blob/main/README.md", "README.md"),
        ("owner/name@../x", "revision"),
        ("owner/name@", "revision"),
        ("owner/name:", "Q4_K_M"),
        ("owner/name:../x.gguf", "Q4_K_M"),
    ] {
        let fault = Repository::parse(name, hub).expect_err(name);
        assert!(fault.contains(word), "{name}: {fault}");
    }
}

#[test]
fn a_revision_cannot_lead_out_of_the_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = offline(folder.path());
    let hub_cache = folder.path().join("hub");
    cached(&hub_cache, "owner/name", &Recipe::llama(2));
    for revision in ["../snapshots/0123abc", "..", "", "/", "."] {
        std::fs::write(hub_cache.join("models--owner--name/refs/main"), revision).expect("writing");
        assert!(reason(resolve("owner/name", &options)).contains("neither"), "{revision}");
    }
}
