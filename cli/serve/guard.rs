//! Access control: requests need a key, if there are keys, and may not come from a web page of another site.

use std::path::Path;

use crate::usage::usage;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use pard::{Error, Result};
use subtle::{Choice, ConstantTimeEq};

use super::fault::Fault;

/// The keys that requests may bear; none, where all may ask.
pub struct Keys {
    keys: Vec<String>,
}

impl Keys {
    /// The keys of a file, one a line; empty lines and those that begin with `#` are none.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or a usage error if there is none in it.
    pub fn read(path: Option<&Path>) -> anyhow::Result<Keys> {
        let Some(path) = path else { return Ok(Keys { keys: Vec::new() }) };
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<String> = lines.map(str::to_owned).collect();
        if keys.is_empty() {
            return Err(usage("--api-key-file", format!("{} holds no key; write one to a line", path.display())));
        }
        Ok(Keys { keys })
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Checks a request's key, in a time that does not tell how much of it is right.
    ///
    /// # Errors
    ///
    /// 401.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Fault> {
        if self.is_empty() {
            return Ok(());
        }
        let header = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let Some(key) = header.and_then(bearer) else {
            return Err(refused("a key is needed: `Authorization: Bearer KEY`"));
        };
        let known = self.keys.iter().fold(Choice::from(0), |known, ours| known | ours.as_bytes().ct_eq(key));
        if bool::from(known) { Ok(()) } else { Err(refused("the key is not known here")) }
    }
}

fn refused(reason: &str) -> Fault {
    Fault::new(StatusCode::UNAUTHORIZED, reason).with_code("invalid_api_key")
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

/// Refuses what a browser sends for a page of another site. Such a page cannot read an answer, but it could have it
/// written.
///
/// # Errors
///
/// 403.
pub fn check_origin(headers: &HeaderMap) -> Result<(), Fault> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    if authority.is_some() && authority == text(HOST) {
        return Ok(());
    }
    Err(Fault::new(StatusCode::FORBIDDEN, "requests of other sites' pages are not answered"))
}
