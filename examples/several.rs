//! Answers several prompts at once: their rows go through the model in the same passes, which read the weights once for all.
//!
//!     cargo run --release --example several -- [PROMPT ..]

use pard::decoding::Completion;
use pard::{Device, Engine, EngineOptions, Limits, Message, Model, Prompt};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut prompts: Vec<String> = std::env::args().skip(1).collect();
    if prompts.is_empty() {
        prompts = ["Name three colours.", "What is 12 times 12?", "Who wrote Faust?"].map(str::to_owned).to_vec();
    }
    let device = Device::open(&Default::default())?;
    let model = Model::load(&device, "smollm2", Default::default())?;
    let options = EngineOptions::default().context(512).sequences(prompts.len());
    let engine = Engine::new(&model, None, options)?;

    let mut answers = Vec::new();
    for prompt in &prompts {
        let tokens = Prompt::from(Message::user(prompt)).tokens(&model.text)?;
        let mut sequence = engine.add(engine.defaults())?;
        sequence.start(&tokens)?;
        let limits = Limits::default().max_tokens(64);
        let completion = Completion::new(&model.text, limits, tokens.len(), sequence.options().context);
        answers.push((sequence, completion, String::new()));
    }
    loop {
        let mut unfinished: Vec<_> =
            answers.iter_mut().filter(|(_, completion, _)| completion.finish_reason().is_none()).collect();
        if unfinished.is_empty() {
            break;
        }
        engine.step(&mut unfinished.iter_mut().map(|(sequence, ..)| sequence).collect::<Vec<_>>())?;
        for (sequence, completion, text) in unfinished {
            text.push_str(&completion.take_round(sequence).text);
        }
    }
    for (prompt, (.., text)) in prompts.iter().zip(&answers) {
        println!("{prompt}\n  {}\n", text.trim().replace('\n', "\n  "));
    }
    Ok(())
}
