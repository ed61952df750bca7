//! The WGSL files, by name. They are part of the binary, so that it runs from anywhere.

macro_rules! shaders {
    ($($name:literal),* $(,)?) => {
        const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../shaders/", $name, ".wgsl")))),*];
    };
}

shaders![
    "accept",
    "argmax",
    "argmax_merge",
    "attention",
    "attention_merge",
    "bandwidth",
    "cache/read_f16",
    "cache/read_f32",
    "cache/write_f16",
    "cache/write_f32",
    "cooperative/tile_16",
    "cooperative/tile_8",
    "embedding",
    "finish/add",
    "finish/bias",
    "finish/store",
    "inputs",
    "matmul_cooperative",
    "matmul_rows",
    "matmul_tile",
    "rms_norm",
    "rope",
    "rope_norm/heads",
    "rope_norm/none",
    "shared/eight",
    "shared/matmul",
    "shared/round",
    "shared/step",
    "swiglu",
    "weights/bf16",
    "weights/f16",
    "weights/f32",
];

/// The text of `shaders/<name>.wgsl`.
pub fn source(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(file, _)| *file == name).map(|(_, text)| *text)
}

/// The names of all shader files.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}
