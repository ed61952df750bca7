//! Caches of conversations in a folder, so that one goes on after a restart without its tokens being read again.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pard::decoding::Sequence;
use pard::{Error, Result};

use super::job::CacheName;
use super::session::{Session, shared};
use crate::output::{self, Verbosity};

/// Ending of the files.
const ENDING: &str = "safetensors";
/// The folder.
pub struct KeptCaches {
    folder: PathBuf,
    /// Bytes that its files may take in all.
    limit: u64,
    talk: Verbosity,
}

impl KeptCaches {
    /// Makes the folder if it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if files cannot be written there.
    pub fn open(folder: &Path, limit: u64, talk: Verbosity) -> Result<KeptCaches> {
        let probe = folder.join(".probe");
        let write = || {
            std::fs::create_dir_all(folder)?;
            std::fs::write(&probe, b"")?;
            std::fs::remove_file(&probe)
        };
        write().map_err(|source| Error::Write { path: folder.to_owned(), source })?;
        Ok(KeptCaches { folder: folder.to_owned(), limit, talk })
    }

    /// Gives `session` the caches called `name`, if there are such and they hold more of `prompt` than its own. Those that
    /// cannot be used are left, and the prompt is read as if they were not there.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`].
    pub fn restore(&self, name: &CacheName, session: &mut Session, prompt: &[u32]) -> Result<()> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(());
        }
        let is_better = |tokens: Vec<u32>| shared(&tokens, prompt) > shared(session.sequence.tokens(), prompt);
        match Sequence::saved_tokens(&path).map(is_better) {
            Ok(true) => self.take(&path, session).map(|_| ()),
            Ok(false) => Ok(()),
            Err(error) => {
                output::note(&error.to_string());
                Ok(())
            }
        }
    }

    /// Writes the caches of `session` under `name`. Where that fails, it is said, and nothing else is lost.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`].
    pub fn keep(&self, name: &CacheName, session: &Session) -> Result<()> {
        match session.sequence.save_caches(&self.path(name)) {
            Err(error @ Error::DeviceLost { .. }) => return Err(error),
            Err(error) => output::note(&error.to_string()),
            Ok(()) => {}
        }
        self.prune();
        Ok(())
    }

    /// Writes the caches of `sessions`, the one that was used last first, in place of those of an earlier run.
    pub fn keep_all<'a>(&self, sessions: impl Iterator<Item = &'a Session>) {
        let mut kept = 0;
        for session in sessions.filter(|session| !session.sequence.tokens().is_empty()) {
            if self.keep(&CacheName::of_session(kept), session).is_err() {
                return;
            }
            kept += 1;
        }
        for path in (kept..).map(|index| self.path(&CacheName::of_session(index))).take_while(|path| path.exists()) {
            let _ = std::fs::remove_file(path);
        }
        self.talk.note(&format!("kept the caches of {kept} conversations in {}", self.folder.display()));
    }

    /// Gives the sessions that `make` makes the caches that [`KeptCaches::keep_all`] has written, at most `count` of them, the
    /// one that was used last first.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceLost`]; those of `make`.
    pub fn restore_all(&self, count: usize, mut make: impl FnMut() -> Result<Session>) -> Result<Vec<Session>> {
        let mut sessions = Vec::new();
        let paths = (0..count).map(|index| self.path(&CacheName::of_session(index)));
        for path in paths.take_while(|path| path.exists()) {
            let mut session = make()?;
            if self.take(&path, &mut session)? {
                sessions.push(session);
            }
        }
        if !sessions.is_empty() {
            self.talk.note(&format!("{} conversations go on from {}", sessions.len(), self.folder.display()));
        }
        Ok(sessions)
    }

    /// Gives `session` the caches of a file; false if they cannot be used, which is said.
    fn take(&self, path: &Path, session: &mut Session) -> Result<bool> {
        match session.sequence.restore_caches(path) {
            Ok(()) => Ok(true),
            Err(error @ Error::DeviceLost { .. }) => Err(error),
            Err(error) => {
                output::note(&error.to_string());
                Ok(false)
            }
        }
    }

    fn path(&self, name: &CacheName) -> PathBuf {
        self.folder.join(name.as_str()).with_extension(ENDING)
    }

    /// Removes the files that were not written for longest, until the others fit.
    fn prune(&self) {
        let mut files = self.files();
        files.sort_by_key(|(written, ..)| std::cmp::Reverse(*written));
        let mut bytes = 0;
        for (_, len, path) in files {
            bytes += len;
            if bytes > self.limit && std::fs::remove_file(&path).is_ok() {
                bytes -= len;
                self.talk.note(&format!("removed {}, as --cache-size wants", path.display()));
            }
        }
    }

    fn files(&self) -> Vec<(SystemTime, u64, PathBuf)> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let paths =
            entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ending| ending == ENDING));
        let file = |path: PathBuf| {
            let metadata = path.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), path))
        };
        paths.filter_map(file).collect()
    }
}
