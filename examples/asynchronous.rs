//! Generates on an executor without blocking its thread: rounds are awaited, and other tasks go on meanwhile.
//!
//!     cargo run --release --example asynchronous

use pard::{Device, Engine, Message, Model, Prompt};

fn main() -> pard::Result<()> {
    let device = Device::open(&Default::default())?;
    let model = Model::load(&device, "smollm2", Default::default())?;
    let engine = Engine::new(&model, None, Default::default())?;
    let tokens = Prompt::from(Message::user("Name three colours.")).tokens(&model.text)?;
    // Any executor will do; this one runs a single task on this thread.
    let text = pollster::block_on(async {
        let mut sequence = engine.add(engine.defaults())?;
        sequence.start(&tokens)?;
        for _ in 0..24 {
            engine.step_async(&mut [&mut sequence]).await?;
        }
        pard::Result::Ok(model.text.tokenizer.decode(&sequence.tokens()[tokens.len()..]))
    })?;
    println!("{text}");
    Ok(())
}
