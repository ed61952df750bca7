//! Answers a question, with a draft that proposes tokens. Models are downloaded if need be.
//!
//!     cargo run --release --example answer -- [TARGET] [DRAFT] [QUESTION]

use std::io::Write;

use pard::{Device, Draft, Engine, Message, Model};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let target = arguments.next().unwrap_or_else(|| "smollm2".to_owned());
    let draft = arguments.next().unwrap_or_else(|| "models/smollm2-135m-instruct-pard".to_owned());
    let question = arguments.next().unwrap_or_else(|| "Why is the sky blue?".to_owned());

    let device = Device::open(&Default::default())?;
    let target = Model::load(&device, &target, Default::default())?;
    let draft = Draft::load(&target, &draft, Default::default())?;
    let engine = Engine::new(&target, Some(&draft), Default::default())?;
    let mut answer = engine.generate(Message::user(question))?;
    for piece in &mut answer {
        print!("{}", piece?);
        std::io::stdout().flush()?;
    }
    let statistics = answer.sequence().statistics();
    println!("\n{} tokens in {} rounds", statistics.committed_tokens, statistics.rounds);
    Ok(())
}
