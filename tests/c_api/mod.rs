//! The C interface: its functions called as C calls them, and its header and libraries as C, C++ and Python programs
//! find them.

mod calls;
mod library;
mod programs;
mod python;

use std::path::PathBuf;
use std::sync::LazyLock;

use crate::support::tiny_model::Recipe;
use crate::support::tiny_tokenizer::special_id;

/// Folders with a model and a draft for it that names a mask token, written once.
pub struct Models {
    pub target: PathBuf,
    pub draft: PathBuf,
}

pub static MODELS: LazyLock<Models> = LazyLock::new(|| {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("c-api");
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
        std::fs::write(&path, text.replace("\"eos_token", "\"unused")).expect("writing");
    }
    models
});
