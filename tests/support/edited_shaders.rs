//! Shaders with a fault planted: a driver that computes wrongly, or that refuses what is right.

use std::path::Path;

use pard::low_level::gpu::Shaders;

/// The crate's shaders with `shaders/<path>` changed by `edit`, which has to change something.
pub fn edited(path: &str, edit: impl FnOnce(&str) -> String) -> Shaders {
    let right = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders").join(path));
    let right = right.expect("a shader");
    let wrong = edit(&right);
    assert_ne!(wrong, right, "{path}");
    replaced(path, &wrong)
}

/// The crate's shaders with `text` in the place of `shaders/<path>`.
pub fn replaced(path: &str, text: &str) -> Shaders {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(path);
    std::fs::create_dir_all(file.parent().expect("a folder above")).expect("folders");
    std::fs::write(file, text).expect("a shader");
    Shaders::from_folder(folder.path()).expect("shaders")
}
