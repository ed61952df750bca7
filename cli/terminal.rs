//! The terminal's own settings, for as long as a chat is held on it.

/// Lets the terminal show no `^C` where Ctrl-C is pressed, as it would within an answer, until this is dropped or
/// [`restore`] is called.
pub struct Quiet;

impl Quiet {
    /// Does so, if standard input is a terminal.
    pub fn new() -> Quiet {
        #[cfg(unix)]
        unix::hide_control_keys();
        Quiet
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal its settings back. A program that ends otherwise than by returning has to call it.
pub fn restore() {
    #[cfg(unix)]
    unix::restore();
}

/// Columns of the terminal that standard error is, if that is known.
pub fn width() -> Option<usize> {
    #[cfg(unix)]
    return unix::width();
    #[cfg(not(unix))]
    None
}

#[cfg(unix)]
mod unix {
    use std::mem::MaybeUninit;
    use std::sync::{Mutex, PoisonError};

    /// The settings before.
    static BEFORE: Mutex<Option<libc::termios>> = Mutex::new(None);

    fn before() -> std::sync::MutexGuard<'static, Option<libc::termios>> {
        BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn hide_control_keys() {
        let mut settings = MaybeUninit::uninit();
        // SAFETY: there is room for what it writes, which it does unless it gives another number.
        let settings = match unsafe { libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) } {
            // SAFETY: as above.
            0 => unsafe { settings.assume_init() },
            _ => return,
        };
        *before() = Some(settings);
        set(libc::termios { c_lflag: settings.c_lflag & !libc::ECHOCTL, ..settings });
    }

    pub fn restore() {
        if let Some(settings) = before().take() {
            set(settings);
        }
    }

    pub fn width() -> Option<usize> {
        let mut size = MaybeUninit::<libc::winsize>::zeroed();
        // SAFETY: there is room for what it writes, and zeros are a size.
        let columns = match unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, size.as_mut_ptr()) } {
            // SAFETY: as above.
            0 => unsafe { size.assume_init() }.ws_col,
            _ => 0,
        };
        Some(usize::from(columns)).filter(|columns| *columns > 0)
    }

    fn set(settings: libc::termios) {
        // SAFETY: it only reads the settings. Where it fails the terminal stays as it is.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &settings) };
    }
}
