//! Format of each of a model's tensors on the device.

use crate::checkpoint::TensorInfo;
use crate::formats::WeightFormat;

/// Format of the weights on the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WeightDtype {
    /// As stored; F32 tensors become BF16.
    #[default]
    Compact,
    /// BF16, but for F16 tensors, which stay what they are.
    Bf16,
    /// All in F32.
    F32,
    /// Floats are quantised; what is quantised already stays as stored.
    Quantised {
        /// The format of the layers' matrices.
        layers: WeightFormat,
        /// The format of the embedding and the head.
        ends: WeightFormat,
    },
}

impl WeightDtype {
    /// The format that a tensor gets.
    pub(super) fn format(self, info: &TensorInfo) -> WeightFormat {
        let native = Some(info.stored).filter(|format| format.is_quantised());
        let float = if info.stored == WeightFormat::F16 { WeightFormat::F16 } else { WeightFormat::Bf16 };
        match self {
            WeightDtype::F32 => WeightFormat::F32,
            WeightDtype::Bf16 => float,
            WeightDtype::Compact => native.unwrap_or(float),
            WeightDtype::Quantised { layers, ends } => native.unwrap_or_else(|| {
                let is_end = matches!(info.name.as_str(), "model.embed_tokens.weight" | "lm_head.weight");
                let columns = info.shape.last().copied().unwrap_or_default();
                fitting(if is_end { ends } else { layers }, columns, float)
            }),
        }
    }
}

/// `format`, or what comes closest to it for rows of `columns`, which its blocks may not fit; `float` if nothing fits.
fn fitting(format: WeightFormat, columns: usize, float: WeightFormat) -> WeightFormat {
    let fits = |format: &WeightFormat| columns.is_multiple_of(format.block_len());
    [format, format.smaller_blocks()].into_iter().find(fits).unwrap_or(float)
}

/// The format that holds the values of both as exactly as 16 bits allow; only F32 holds BF16 and F16 values both.
pub(super) fn common(one: WeightFormat, other: WeightFormat) -> WeightFormat {
    match (one, other) {
        (one, other) if one == other => one,
        (one, other) if one.is_quantised() || other.is_quantised() => WeightFormat::Bf16,
        _ => WeightFormat::F32,
    }
}
