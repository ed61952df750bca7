//! Lists the shader files, so that a new one is known by lying in shaders/.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Folders that names leave out: `kernels/training/adamw.wgsl` is `adamw`, `pieces/rows/one.wgsl` is `rows/one`.
const UNNAMED: [&str; 3] = ["kernels/training/", "kernels/", "pieces/"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("shaders");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut paths = Vec::new();
    find(&root, &mut paths)?;
    paths.sort();
    let mut list =
        String::from("/// Name, path in shaders/, and text of each file.\nconst FILES: &[(&str, &str, &str)] = &[\n");
    for path in paths {
        // Of the components, so that it is the same on Windows.
        let parts = path.strip_prefix(&root)?.components().map(|part| part.as_os_str().to_string_lossy());
        let inside = parts.collect::<Vec<_>>().join("/");
        let name = inside.strip_suffix(".wgsl").ok_or_else(|| format!("shaders/{inside} is no .wgsl file"))?;
        let name = UNNAMED.iter().find_map(|folder| name.strip_prefix(folder)).unwrap_or(name);
        writeln!(list, "    ({name:?}, {inside:?}, include_str!({:?})),", path.display().to_string())?;
    }
    list.push_str("];\n");
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("shaders.rs"), list)?;
    Ok(())
}

fn find(folder: &Path, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}
