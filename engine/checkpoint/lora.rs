//! LoRA adapters, which are called what they are: they hold changes of a model's weights, and no model.

use serde_json::Value;

/// The file that tells an adapter's folder from a model's.
pub(super) const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Says what an adapter with this configuration is, and what to do.
pub(super) fn describe(config: Option<&Value>) -> String {
    let base = config.and_then(|config| config.get("base_model_name_or_path")).and_then(Value::as_str);
    let of = base.map(|base| format!(" of {base}")).unwrap_or_default();
    format!(
        "it is a LoRA adapter{of}, not a whole model; merge the two (`merge_and_unload` and `save_pretrained` of the \
         Python package peft) and name the folder that this gives"
    )
}
