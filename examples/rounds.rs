//! Prints what a draft proposes and what its target keeps, round by round, as JSON lines:
//!
//!     cargo run --release --example rounds -- MODEL DRAFT "PROMPT" K TOKENS
//!
//! All is computed in f32, so that another implementation can be held against it (benches/reread_draft.py).

use pard::low_level::inspect::Inspect;
use pard::{CacheFormat, Device, Draft, DraftLength, Engine, EngineOptions, LoadOptions, Model, Sequence, WeightDtype};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, draft, prompt, drafts, tokens] = &arguments[..] else {
        return Err("usage: rounds MODEL DRAFT PROMPT K TOKENS".into());
    };
    let (drafts, tokens): (usize, usize) = (drafts.parse()?, tokens.parse()?);
    let device = Device::open(&Default::default())?;
    let options = LoadOptions::default().dtype(WeightDtype::F32).cache(CacheFormat::F32);
    let target = Model::load(&device, model, options)?;
    let draft = Draft::load(&target, draft, options)?;
    let prompt = target.text.text_tokens(prompt)?;
    let context = prompt.len() + tokens + 2 * drafts;
    let engine = Engine::new(&target, Some(&draft), EngineOptions::default().context(context))?;
    let options = engine.defaults().drafts(DraftLength::Fixed(drafts)).run_ahead(Some(false));
    let mut sequence: Sequence = engine.add(options)?;
    sequence.start(&prompt)?;
    while sequence.tokens().len() < prompt.len() + tokens {
        let before = sequence.tokens().to_vec();
        sequence.round()?;
        let (proposals, kept) = (sequence.proposals()?, sequence.last_tokens());
        println!("{{\"before\": {before:?}, \"proposals\": {proposals:?}, \"kept\": {kept:?}}}");
    }
    Ok(())
}
