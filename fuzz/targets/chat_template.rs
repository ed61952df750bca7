//! A chat template, and what is said in it: the input up to a zero byte, and the rest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pard::text::{ChatTemplate, Message, Rendering};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (template, said) = text.split_once('\0').unwrap_or((text, "Who are you?"));
    let tokens = [("bos_token".to_owned(), "<s>".to_owned()), ("eos_token".to_owned(), "</s>".to_owned())];
    let Ok(template) = ChatTemplate::new(template, tokens.into()) else { return };
    let messages = [Message::system("s"), Message::user(said), Message::assistant(said), Message::user("b")];
    let _ = template.render(&messages, Rendering::default());
    let _ = template.render(&messages[..1], Rendering::default().enable_thinking(Some(false)));
});
