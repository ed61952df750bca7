//! The WGSL files, by name. They are part of the binary, so that it runs from anywhere; a folder of edited ones may stand
//! in for them, so that a kernel can be changed and profiled without a rebuild.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, OptionName, Result};

macro_rules! shaders {
    ($($name:literal),* $(,)?) => {
        const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../shaders/", $name, ".wgsl")))),*];
    };
}

shaders![
    "accept",
    "adamw",
    "argmax",
    "argmax_merge",
    "attention",
    "attention_merge",
    "bandwidth",
    "cache/keys",
    "cache/q8_0",
    "cache/read_f16",
    "cache/read_f32",
    "cache/read_q8_0",
    "cache/write_f16",
    "cache/write_f32",
    "cache/write_q8_0",
    "choice/listed",
    "choice/plain",
    "column_sum",
    "cooperative/tile_16",
    "cooperative/tile_8",
    "cross_entropy",
    "embedding",
    "embedding_gradient",
    "embedding_mask/none",
    "embedding_mask/row",
    "epilogue/add",
    "epilogue/bias",
    "epilogue/residual",
    "epilogue/store",
    "epilogue/swiglu",
    "gather",
    "gradient_norm",
    "gradient_norm_merge",
    "input/storage",
    "input/uniform",
    "input_gradient",
    "inputs",
    "kept/all",
    "kept/threshold",
    "log_probabilities",
    "matmul_cooperative",
    "matmul_integer",
    "matmul_rows",
    "matmul_tile",
    "moments/bf16",
    "moments/f32",
    "multiply",
    "noise/gumbel",
    "noise/none",
    "norm/quantise",
    "norm/store",
    "norm_rows/listed",
    "norm_rows/step",
    "packed_attention",
    "packed_attention_key_gradient",
    "packed_attention_query_gradient",
    "packed_attention_sums",
    "penalties",
    "planes/one",
    "planes/two",
    "probabilities",
    "quantise_rows",
    "query/storage",
    "query/uniform",
    "recall",
    "rejection",
    "remember",
    "rms_norm",
    "rms_norm_gain_gradient",
    "rms_norm_gain_merge",
    "rms_norm_gradient",
    "rope",
    "rope_gain_gradient",
    "rope_gradient",
    "rope_head_scales",
    "rope_norm/heads",
    "rope_norm/none",
    "rope_norm_gradient/heads",
    "rope_norm_gradient/none",
    "rows/many",
    "rows/one",
    "shared/ahead",
    "shared/attention",
    "shared/batch",
    "shared/eight",
    "shared/gumbel",
    "shared/matmul",
    "shared/output",
    "shared/packed_attention",
    "shared/packed_attention_gradient",
    "shared/pass_row",
    "shared/quantise",
    "shared/rms_norm_gradient",
    "shared/rope_gradient",
    "shared/round",
    "shared/row_scale",
    "shared/sampling",
    "shared/step",
    "shared/training_row",
    "shared/turn_back",
    "shared/weight",
    "slice/invocation",
    "slice/subgroup",
    "swiglu",
    "swiglu_gradient",
    "teacher/logits",
    "teacher/none",
    "token_counts",
    "truncation",
    "weight_gradient",
    "weights/bf16",
    "weights/f16",
    "weights/f32",
    "weights/integer",
    "weights/q4_0",
    "weights/q4_0_integer",
    "weights/q4_1",
    "weights/q4_1_integer",
    "weights/q4_k",
    "weights/q4_k_integer",
    "weights/q5_0",
    "weights/q5_0_integer",
    "weights/q5_1",
    "weights/q5_1_integer",
    "weights/q5_k",
    "weights/q5_k_integer",
    "weights/q6_k",
    "weights/q6_k_integer",
    "weights/q8_0",
    "weights/q8_0_integer",
    "weights/quantised",
    "weights/six_bits",
    "weights/six_bits_integer",
    "weights/unscaled",
];

/// Source of kernels: this crate's own files, some of which may be edited ones.
#[derive(Debug, Clone, Default)]
pub struct Shaders {
    edited: HashMap<&'static str, String>,
}

impl Shaders {
    /// This crate's files, but those that lie in `folder` under their names (`matmul_rows.wgsl`, `weights/bf16.wgsl`)
    /// taken from there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a file cannot be read; [`Error::Option`] if the folder holds none of them.
    pub fn from_folder(folder: &Path) -> Result<Shaders> {
        let mut edited = HashMap::new();
        for name in names() {
            let path = folder.join(format!("{name}.wgsl"));
            match std::fs::read_to_string(&path) {
                Ok(text) => drop(edited.insert(name, text)),
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Io { path, source }),
            }
        }
        if edited.is_empty() {
            let reason = format!("{} holds no shader of this program, such as matmul_rows.wgsl", folder.display());
            return Err(Error::Option { option: OptionName::Shaders, reason });
        }
        Ok(Shaders { edited })
    }

    /// The names of the files that are taken from a folder and differ from this crate's, ascending.
    pub fn edited(&self) -> Vec<&'static str> {
        let differs = |(name, text): (&&'static str, &String)| (source(name) != Some(text)).then_some(*name);
        let mut names: Vec<_> = self.edited.iter().filter_map(differs).collect();
        names.sort_unstable();
        names
    }

    /// The text of `<name>.wgsl`.
    pub(super) fn source(&self, name: &str) -> Option<&str> {
        self.edited.get(name).map(String::as_str).or_else(|| source(name))
    }
}

/// The text of `shaders/<name>.wgsl`.
pub fn source(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(file, _)| *file == name).map(|(_, text)| *text)
}

/// The names of all shader files.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}
