//! `config.json`.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pard::checkpoint::hugging_face::parse_config;
use pard::low_level::forward::expected_matrices;

fuzz_target!(|data: &[u8]| {
    let Ok(json) = serde_json::from_slice(data) else { return };
    if let Ok(config) = parse_config(Path::new("config.json"), &json) {
        // What was found good must not overflow later.
        if config.layers <= 1000 {
            let _ = expected_matrices(&config);
        }
    }
});
