//! Ctrl-C: the first one ends the answer after the current round, one too many ends the program.
//! Until [`listen`] the system's own handling is left in place: nothing is lost by ending then.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::terminal;

static LISTENING: AtomicBool = AtomicBool::new(false);
/// Number of times Ctrl-C was pressed since [`forget`].
static PRESSED: AtomicUsize = AtomicUsize::new(0);
/// Number of times Ctrl-C may be pressed before it ends the program.
static ALLOWED: AtomicUsize = AtomicUsize::new(1);

/// Exit code that shells report for a program that Ctrl-C ended.
const CODE: u8 = 130;

/// Number of times Ctrl-C may end only the answer before it ends the program. A device that hangs in a round must not hold
/// the user for ever.
pub const PATIENT: usize = 2;

/// From here on Ctrl-C is noted; a second one ends the program. A command that another one is part of may ask for it again.
pub fn listen() -> anyhow::Result<()> {
    if LISTENING.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let handler = || {
        if PRESSED.fetch_add(1, Ordering::Relaxed) >= ALLOWED.load(Ordering::Relaxed) {
            terminal::restore();
            std::process::exit(CODE.into());
        }
    };
    ctrlc::set_handler(handler).map_err(|error| anyhow::anyhow!("cannot listen for Ctrl-C: {error}"))
}

/// From here on so many Ctrl-C may come before one ends the program.
pub fn allow(times: usize) {
    ALLOWED.store(times, Ordering::Relaxed);
}

/// Forgets the Ctrl-C there was.
pub fn forget() {
    PRESSED.store(0, Ordering::Relaxed);
}

/// Returns `true` if Ctrl-C was pressed.
pub fn requested() -> bool {
    PRESSED.load(Ordering::Relaxed) > 0
}

/// The exit code of a command that did what it could until Ctrl-C.
pub fn exit_code() -> ExitCode {
    if requested() { ExitCode::from(CODE) } else { ExitCode::SUCCESS }
}
