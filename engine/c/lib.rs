//! The C interface, of which `pard.h` is the manual: thin shims over the public interface of the crate `pard`.
//! Each function checks its pointers, catches panics, and turns errors into a status and a message. Handles are boxes;
//! all they hold is shared, so that they may be freed in any order.
#![allow(clippy::missing_safety_doc, reason = "pard.h says what every pointer must be")]

mod arguments;
mod device;
mod failure;
mod model;
mod session;
mod tokens;
mod writer;

#[cfg(test)]
#[path = "../../tests/c/mod.rs"]
mod tests;

use std::ffi::{CStr, c_char};

pub use device::*;
pub use failure::*;
pub use model::*;
pub use session::*;
pub use tokens::*;
pub use writer::*;

/// `PARD_DEFAULT`, `PARD_ON`, `PARD_OFF` as an option.
fn choice(option: &str, value: i32) -> Result<Option<bool>, Failure> {
    match value {
        0 => Ok(None),
        1 => Ok(Some(true)),
        2 => Ok(Some(false)),
        other => Err(Failure::argument(format!("{option} is {other}: neither PARD_DEFAULT, PARD_ON nor PARD_OFF"))),
    }
}

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version holds no zero byte"),
};

/// `pard_version`.
#[unsafe(no_mangle)]
pub extern "C" fn pard_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Thread safety that the manual promises, checked by the compiler.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<PardDevice>();
    shared::<PardModel>();
    shared::<PardDraft>();
    shared::<PardSession>();
    fn moved<T: Send>() {}
    moved::<PardError>();
};
