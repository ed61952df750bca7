//! The measure that counts, on prompts that are not learnt from.

use std::path::Path;

use anyhow::Context;
use pard::low_level::training::measure::acceptance;
use pard::model::{LoadOptions, Model};
use pard::{Device, Draft};

use crate::args::StyleArguments;
use crate::{interrupt, prompt};

/// Tokens proposed per round, and tokens of an answer.
const MEASURED: [usize; 2] = [8, 64];

/// Prompts in the target's tokens.
pub struct HeldOut {
    prompts: Vec<Vec<u32>>,
}

impl HeldOut {
    /// Reads the prompts of `path`.
    pub fn read(target: &Model, path: &Path) -> anyhow::Result<HeldOut> {
        let style = StyleArguments { chat: false, raw: false, system: None, thinking: None };
        let prompts = prompt::read_lines(path)?
            .iter()
            .map(|prompt| prompt.tokens(&target.text, &style))
            .collect::<Result<_, _>>()
            .with_context(|| path.display().to_string())?;
        Ok(HeldOut { prompts })
    }

    /// Tokens per round of `target` with the draft in `folder`, in words.
    pub fn measure(&self, device: &Device, target: &Model, folder: &Path) -> anyhow::Result<String> {
        let name = folder.to_str().context("the folder's name is no UTF-8")?;
        let draft = Model::load_draft(device, name, target, LoadOptions::default())?;
        let draft = Draft::new(&draft, target, None)?;
        let reached = acceptance(&target.weights, &draft, &self.prompts, &target.text.stop_tokens, MEASURED, &|| {
            !interrupt::requested()
        })?;
        let shares: Vec<_> = reached.accepted.iter().map(|share| format!("{:.0}", 100.0 * share)).collect();
        Ok(format!(
            "held out: {:.2} tokens per round, accepted {} % by position",
            reached.tokens_per_round,
            shares.join(" ")
        ))
    }
}
