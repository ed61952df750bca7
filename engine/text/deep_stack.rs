//! Work whose depth of calls is that of what it is given: templates and grammars that are nested, or that chain names.

use crate::error::Result;

/// Bytes of its stack, of which those that are not used take no memory.
#[cfg(not(target_arch = "wasm32"))]
const STACK: usize = 512 << 20;

/// Does `work` on a stack of its own.
///
/// # Errors
///
/// [`Error::Thread`](crate::Error::Thread), and those of `work`.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn on_a_deep_stack<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
        let working = thread.spawn_scoped(scope, work).map_err(|source| crate::error::Error::Thread { source })?;
        working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Browsers have one stack.
#[cfg(target_arch = "wasm32")]
pub(super) fn on_a_deep_stack<T>(_name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    work()
}
