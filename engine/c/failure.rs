//! From errors and panics to a status and a message.

use std::any::Any;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pard::error::Error;

/// A status of `pard.h`.
pub type PardStatus = i32;

/// The statuses, by their names and numbers in `pard.h`.
const NAMES: [&CStr; 11] = [
    c"PARD_OK",
    c"PARD_INVALID_ARGUMENT",
    c"PARD_NO_DEVICE",
    c"PARD_NO_MODEL",
    c"PARD_BAD_MODEL",
    c"PARD_BAD_DRAFT",
    c"PARD_BAD_PROMPT",
    c"PARD_NO_MEMORY",
    c"PARD_DEVICE_LOST",
    c"PARD_BUSY",
    c"PARD_INTERNAL",
];

const OK: PardStatus = 0;
const INVALID_ARGUMENT: PardStatus = 1;
const NO_DEVICE: PardStatus = 2;
const NO_MODEL: PardStatus = 3;
const BAD_MODEL: PardStatus = 4;
const BAD_DRAFT: PardStatus = 5;
const BAD_PROMPT: PardStatus = 6;
const NO_MEMORY: PardStatus = 7;
const DEVICE_LOST: PardStatus = 8;
const BUSY: PardStatus = 9;
const INTERNAL: PardStatus = 10;

/// `pard_error`: how the last call that failed did.
pub struct PardError {
    status: PardStatus,
    message: CString,
}

/// Why a call fails.
pub(super) struct Failure {
    status: PardStatus,
    message: String,
}

impl Failure {
    pub fn argument(message: impl Into<String>) -> Failure {
        Failure { status: INVALID_ARGUMENT, message: message.into() }
    }

    pub fn draft(message: impl Into<String>) -> Failure {
        Failure { status: BAD_DRAFT, message: message.into() }
    }

    pub fn busy() -> Failure {
        Failure { status: BUSY, message: "the session is in use by another call".to_owned() }
    }

    fn panic(payload: &(dyn Any + Send)) -> Failure {
        let words = payload.downcast_ref::<&str>().copied();
        let words = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        Failure { status: INTERNAL, message: format!("a fault of the library: {words}") }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = match &error {
            Error::Adapter { .. } | Error::Device { .. } => NO_DEVICE,
            Error::DeviceLost { .. } => DEVICE_LOST,
            Error::OutOfMemory { .. } | Error::DoesNotFit { .. } | Error::Limit { .. } => NO_MEMORY,
            Error::NoModel { .. } | Error::Io { .. } | Error::Hub { .. } => NO_MODEL,
            Error::Damaged { .. }
            | Error::Config { .. }
            | Error::UnknownFamily { .. }
            | Error::MissingTensor { .. }
            | Error::TensorShape { .. }
            | Error::TensorType { .. }
            | Error::Tokenizer { .. }
            | Error::NoEmbeddings { .. } => BAD_MODEL,
            Error::TokenizerMismatch { .. } | Error::NoMaskToken { .. } => BAD_DRAFT,
            Error::EmptyPrompt | Error::ContextFull { .. } | Error::Template { .. } | Error::TokenRange { .. } => {
                BAD_PROMPT
            }
            Error::Option { .. } | Error::Grammar { .. } => INVALID_ARGUMENT,
            _ => INTERNAL,
        };
        Failure { status, message: error.to_string() }
    }
}

/// Runs `call`; an error becomes the status, and is noted in `error` if there is one.
pub(super) unsafe fn guard(error: *mut PardError, call: impl FnOnce() -> Result<(), Failure>) -> PardStatus {
    // A panic leaves at most a session half done, which then has to be started anew.
    let outcome = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| Err(Failure::panic(&*payload)));
    let Err(Failure { status, message }) = outcome else { return OK };
    // SAFETY: the caller of a C function hands it a pard_error that lives, or NULL.
    if let Some(error) = unsafe { error.as_mut() } {
        *error = PardError { status, message: c_string(&message) };
    }
    status
}

/// Runs `make`, and hands its result to the caller as a handle, which is NULL if it failed.
pub(super) unsafe fn give<T>(
    out: *mut *mut T,
    error: *mut PardError,
    make: impl FnOnce() -> Result<T, Failure>,
) -> PardStatus {
    let call = || {
        if out.is_null() {
            return Err(Failure::argument("the place for the new handle is NULL"));
        }
        // SAFETY: the caller hands over a place for a pointer. It may hold anything so far.
        unsafe { out.write(std::ptr::null_mut()) };
        let made = Box::into_raw(Box::new(make()?));
        // SAFETY: as above.
        unsafe { out.write(made) };
        Ok(())
    };
    // SAFETY: `error` is the caller's.
    unsafe { guard(error, call) }
}

/// Takes back a handle that [`give`] gave.
pub(super) unsafe fn free<T>(handle: *mut T) {
    let call = || {
        if !handle.is_null() {
            // SAFETY: the caller hands over what `give` made, once.
            drop(unsafe { Box::from_raw(handle) });
        }
        Ok(())
    };
    // SAFETY: there is no error to fill.
    unsafe { guard(std::ptr::null_mut(), call) };
}

/// `text` as C has it, up to its first zero byte.
pub(super) fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// `pard_status_name`.
#[unsafe(no_mangle)]
pub extern "C" fn pard_status_name(status: PardStatus) -> *const c_char {
    usize::try_from(status).ok().and_then(|status| NAMES.get(status)).unwrap_or(&c"PARD_UNKNOWN").as_ptr()
}

/// `pard_error_new`.
#[unsafe(no_mangle)]
pub extern "C" fn pard_error_new() -> *mut PardError {
    Box::into_raw(Box::new(PardError { status: OK, message: CString::default() }))
}

/// `pard_error_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_error_free(error: *mut PardError) {
    // SAFETY: the caller's.
    unsafe { free(error) };
}

/// `pard_error_status`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_error_status(error: *const PardError) -> PardStatus {
    // SAFETY: the caller hands over a pard_error that lives, or NULL.
    unsafe { error.as_ref() }.map_or(OK, |error| error.status)
}

/// `pard_error_message`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pard_error_message(error: *const PardError) -> *const c_char {
    // SAFETY: as above.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.message.as_ptr())
}
