//! Arguments from C callers, checked as far as possible: NULL, UTF-8, the sizes of structs.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

use super::failure::Failure;

/// A struct that is shared with C callers.
///
/// # Safety
///
/// It is `repr(C)`, begins with its size as a `usize`, and is valid with all bytes zero.
pub(super) unsafe trait Shared: Copy {}

/// No struct grows beyond this: a larger size was never set.
const LARGEST_STRUCT: usize = 4096;

/// The value behind a handle.
pub(super) unsafe fn handle<'a, T>(handle: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller hands over a handle that lives, or NULL.
    unsafe { handle.as_ref() }.ok_or_else(|| Failure::argument(format!("{what} is NULL")))
}

/// A string.
pub(super) unsafe fn text<'a>(string: *const c_char, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller hands over a string that ends with a zero byte, or NULL.
    unsafe { optional_text(string, what) }?.ok_or_else(|| Failure::argument(format!("{what} is NULL")))
}

/// A string that may be absent.
pub(super) unsafe fn optional_text<'a>(string: *const c_char, what: &str) -> Result<Option<&'a str>, Failure> {
    if string.is_null() {
        return Ok(None);
    }
    // SAFETY: as above.
    match unsafe { CStr::from_ptr(string) }.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            Err(Failure::argument(format!("{what} is not UTF-8: byte {} begins no character", error.valid_up_to())))
        }
    }
}

/// `count` values.
pub(super) unsafe fn list<'a, T>(first: *const T, count: usize, what: &str) -> Result<&'a [T], Failure> {
    match count {
        0 => Ok(&[]),
        _ if first.is_null() => Err(Failure::argument(format!("{what} is NULL, and {count} of them were announced"))),
        _ if count > isize::MAX as usize / size_of::<T>().max(1) => {
            Err(Failure::argument(format!("{what}: {count} of them do not fit into any memory")))
        }
        // SAFETY: the caller hands over as many as announced.
        _ => Ok(unsafe { std::slice::from_raw_parts(first, count) }),
    }
}

/// A struct of options: zeros where the caller's version of it ends, and where there is none.
pub(super) unsafe fn options<T: Shared>(options: *const T, what: &str) -> Result<T, Failure> {
    let mut value = MaybeUninit::<T>::zeroed();
    if !options.is_null() {
        let bytes: *const u8 = options.cast();
        // SAFETY: the struct begins with its size, and is as long as that.
        let size = unsafe { checked_size(bytes, what) }?;
        let known = size.min(size_of::<T>());
        // SAFETY: as above; what is beyond our own struct is only compared.
        let newer = unsafe {
            std::ptr::copy_nonoverlapping(bytes, value.as_mut_ptr().cast(), known);
            std::slice::from_raw_parts(bytes.add(known), size - known)
        };
        if newer.iter().any(|&byte| byte != 0) {
            return Err(Failure::argument(format!("{what} asks for what only a later version of this library has")));
        }
    }
    // SAFETY: any bytes make such a struct: numbers and pointers, NULL where zero.
    Ok(unsafe { value.assume_init() })
}

/// Checks that a struct of results can be filled.
pub(super) unsafe fn check_size<T: Shared>(out: *const T, what: &str) -> Result<(), Failure> {
    // SAFETY: the struct begins with its size.
    unsafe { checked_size(out.cast(), what) }.map(drop)
}

/// Fills a struct of results as far as the caller's version of it goes; its size stays as the caller has set it.
pub(super) unsafe fn fill<T: Shared>(out: *mut T, value: &T, what: &str) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::argument(format!("{what} is NULL")));
    }
    let (bytes, begin): (*mut u8, _) = (out.cast(), size_of::<usize>());
    // SAFETY: the struct begins with its size, and is as long as that.
    unsafe {
        let size = checked_size(bytes, what)?;
        let known = size.min(size_of::<T>());
        let from: *const u8 = std::ptr::from_ref(value).cast();
        std::ptr::copy_nonoverlapping(from.add(begin), bytes.add(begin), known - begin);
        std::ptr::write_bytes(bytes.add(known), 0, size - known);
    }
    Ok(())
}

unsafe fn checked_size(bytes: *const u8, what: &str) -> Result<usize, Failure> {
    // SAFETY: the struct begins with its size.
    let size = unsafe { bytes.cast::<usize>().read_unaligned() };
    if !(size_of::<usize>()..=LARGEST_STRUCT).contains(&size) {
        return Err(Failure::argument(format!("{what} does not say its size: {size}; set its field `size` to sizeof")));
    }
    Ok(size)
}
