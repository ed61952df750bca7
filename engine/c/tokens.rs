//! Between text and tokens.

use std::ffi::c_char;

use super::arguments;
use super::choice;
use super::failure::{Failure, PardError, PardStatus, guard};
use super::model::PardModel;
use pard::error::Error;
use pard::text::{ChatTokenizer, Message, Rendering};

/// `pard_message`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PardMessage {
    /// Role of the speaker.
    pub role: *const c_char,
    /// Text of the message.
    pub content: *const c_char,
}

/// The tokens of a conversation.
pub(super) unsafe fn chat_tokens(
    text: &ChatTokenizer,
    messages: *const PardMessage,
    count: usize,
    thinking: i32,
) -> Result<Vec<u32>, Failure> {
    // SAFETY: the pointers are what the manual asks for; so in all of this module.
    let messages = unsafe { arguments::list(messages, count, "messages") }?;
    if messages.is_empty() {
        return Err(Error::EmptyPrompt.into());
    }
    let messages = messages.iter().map(|message| {
        // SAFETY: as above.
        let (role, content) =
            unsafe { (arguments::text(message.role, "role")?, arguments::text(message.content, "content")?) };
        Ok(Message::new(role, content))
    });
    let messages = messages.collect::<Result<Vec<Message>, Failure>>()?;
    let rendering = Rendering::default().enable_thinking(choice("thinking", thinking)?);
    Ok(text.chat_tokens(&messages, rendering)?)
}

/// Gives as many of `values` as fit, and says how many there are.
unsafe fn write<T: Copy>(
    values: &[T],
    out: *mut T,
    capacity: usize,
    written: usize,
    count: *mut usize,
) -> Result<(), Failure> {
    if count.is_null() || (out.is_null() && capacity > 0) {
        return Err(Failure::argument("the place for the result, or for its length, is NULL"));
    }
    // SAFETY: as above; `written` is at most `capacity`.
    unsafe {
        if written > 0 {
            std::ptr::copy_nonoverlapping(values.as_ptr(), out, written);
        }
        count.write(values.len());
    }
    Ok(())
}

/// `pard_model_tokenize`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_model_tokenize(
    model: *const PardModel,
    text: *const c_char,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: as above.
    unsafe {
        guard(error, || {
            let model = arguments::handle(model, "model")?;
            let found = model.model.text.text_tokens(arguments::text(text, "text")?)?;
            write(&found, tokens, capacity, found.len().min(capacity), count)
        })
    }
}

/// `pard_model_tokenize_chat`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_model_tokenize_chat(
    model: *const PardModel,
    messages: *const PardMessage,
    message_count: usize,
    thinking: i32,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: as above.
    unsafe {
        guard(error, || {
            let model = arguments::handle(model, "model")?;
            let found = chat_tokens(&model.model.text, messages, message_count, thinking)?;
            write(&found, tokens, capacity, found.len().min(capacity), count)
        })
    }
}

/// `pard_model_detokenize`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_model_detokenize(
    model: *const PardModel,
    tokens: *const u32,
    count: usize,
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut PardError,
) -> PardStatus {
    // SAFETY: as above.
    unsafe {
        guard(error, || {
            let model = arguments::handle(model, "model")?;
            let found = model.model.text.tokenizer.decode(arguments::list(tokens, count, "tokens")?);
            let fits = found.floor_char_boundary(capacity.saturating_sub(1));
            write(found.as_bytes(), text.cast(), capacity, fits, length)?;
            if capacity > 0 {
                text.add(fits).write(0);
            }
            Ok(())
        })
    }
}
