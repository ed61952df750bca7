//! Ctrl-C: the first one ends the answer after the current round, a second one ends the program.
//! Until [`listen`] the system's own handling is left in place: nothing is lost by ending then.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

static LISTENING: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// What shells report for a program that Ctrl-C ended.
const CODE: u8 = 130;

/// From here on Ctrl-C is noted. A command that another one is part of may ask for it again.
pub fn listen() -> anyhow::Result<()> {
    if LISTENING.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let handler = || {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(CODE.into());
        }
    };
    ctrlc::set_handler(handler).map_err(|error| anyhow::anyhow!("cannot listen for Ctrl-C: {error}"))
}

/// Whether Ctrl-C was pressed.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// The exit code of a command that did what it could until Ctrl-C.
pub fn exit_code() -> ExitCode {
    if requested() { ExitCode::from(CODE) } else { ExitCode::SUCCESS }
}
