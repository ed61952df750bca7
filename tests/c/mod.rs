//! The C interface: its functions called as C calls them, and its header and libraries as C, C++ and Python programs
//! find them.

mod calls;
mod library;
mod programs;
mod python;

use std::path::PathBuf;
use std::sync::LazyLock;

use pard::decoding::Limits;
use pard::{Device, Engine, Message, Model};

use support::tiny_model::Recipe;
use support::tiny_tokenizer::special_id;

#[path = "../support"]
#[allow(dead_code, reason = "the tests of the engine use the rest")]
mod support {
    pub mod random;
    pub mod tiny_model;
    pub mod tiny_tokenizer;
}

/// The repository's folder.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A folder for files of these tests, beside what cargo builds.
pub static TEMPORARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = std::env::current_exe().expect("the tests have a path");
    let folder = test.ancestors().nth(3).expect("target/debug/deps").join("tmp");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
});

/// The device of these tests.
pub fn device() -> &'static Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| Device::open(&Default::default()).expect("a device"));
    &DEVICE
}

/// The answer of the model `name` to `question`, in `max_tokens` tokens at most, by the engine itself.
pub fn answer_of_the_engine(name: &str, question: &str, max_tokens: usize) -> String {
    let model = Model::load(device(), name, Default::default()).expect("a model");
    let engine = Engine::new(&model, None, Default::default()).expect("an engine");
    let limits = Limits::default().max_tokens(max_tokens);
    let generation = engine.generate_with(Message::user(question), engine.defaults(), limits).expect("a prompt");
    generation.collect::<pard::Result<String>>().expect("an answer")
}

/// Folders with a model and a draft for it that names a mask token, written once.
pub struct Models {
    pub target: PathBuf,
    pub draft: PathBuf,
}

pub static MODELS: LazyLock<Models> = LazyLock::new(|| {
    let root = TEMPORARY.join("c-library");
    let folder = |name: &str, recipe: &Recipe| {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder).expect("a folder for models");
        recipe.write(&folder);
        folder
    };
    let mut with_mask = Recipe::llama(12);
    with_mask.config.mask_token = Some(special_id(3));
    let models = Models { target: folder("target", &Recipe::llama(11)), draft: folder("draft", &with_mask) };
    // Answers are to be as long as is asked for, so the model has no stop tokens.
    std::fs::remove_file(models.target.join("generation_config.json")).expect("removing");
    for file in ["config.json", "tokenizer_config.json"] {
        let path = models.target.join(file);
        let text = std::fs::read_to_string(&path).expect("a text file");
        std::fs::write(&path, text.replace("\"eos_token", "\"unused").replace("<|im_end|>", "")).expect("writing");
    }
    models
});
