// Tokens below the row's threshold are not drawn: see truncation.
@group(0) @binding(AT_THRESHOLDS) var<storage, read> thresholds: array<f32>;          // [rows]

fn is_kept(row: u32, logit: f32) -> bool { return logit >= thresholds[row]; }
