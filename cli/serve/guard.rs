//! Access control: requests need a key, if there are keys, and may not come from a web page of another site.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::text_file;
use crate::usage::usage;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use pard::Result;
use subtle::{Choice, ConstantTimeEq};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

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
    /// [`pard::Error::Io`], or a usage error if there is none in it.
    pub fn read(path: Option<&Path>) -> anyhow::Result<Keys> {
        let Some(path) = path else { return Ok(Keys { keys: Vec::new() }) };
        let text = text_file::read(path)?;
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
        let bytes = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        // Anthropic's clients have a header of their own for it.
        let Some(key) = bytes(AUTHORIZATION.as_str()).and_then(bearer).or_else(|| bytes("x-api-key")) else {
            return Err(refused("a key is needed: `Authorization: Bearer KEY` or `x-api-key: KEY`"));
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

/// Names that the server goes by, and sites whose pages may ask it.
///
/// A page of another site cannot read an answer, but it could have it written. A page that gives its own name this machine's
/// address (DNS rebinding) could read it, too: its requests name a host that is a stranger's.
pub struct Sites {
    /// Hosts that requests may name beside this machine's addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Origins of pages, such as `https://example.com`; `*` is all.
    pub origins: Vec<String>,
    /// Set if requests bear a key, which no stranger's page has: then they may name any host.
    pub has_keys: bool,
}

impl Sites {
    /// Checks the host that a request names, and the page that it comes from.
    ///
    /// # Errors
    ///
    /// 403.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(HOST).unwrap_or_default();
        if !self.has_keys && !self.is_ours(host) {
            let reason = format!("this server does not go by the name {host:?}; --allow-host adds names");
            return Err(Fault::new(StatusCode::FORBIDDEN, reason));
        }
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        let is_own = origin.split_once("://").is_some_and(|(_, authority)| authority == host);
        if is_own || self.origins.iter().any(|allowed| allowed == "*" || allowed == origin) {
            return Ok(());
        }
        let reason = format!("requests of pages of {origin:?} are not answered; --allow-origin allows a site");
        Err(Fault::new(StatusCode::FORBIDDEN, reason))
    }

    /// Returns `true` for an address, as which no stranger's name can pass, and for a name that is allowed.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => name,
            _ => host,
        };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = name.to_ascii_lowercase();
        bare.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&name))
    }

    /// What browsers are told of the pages that may ask.
    pub fn cors(&self) -> CorsLayer {
        let origins = match self.origins.iter().any(|origin| origin == "*") {
            true => AllowOrigin::any(),
            false => AllowOrigin::list(self.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())),
        };
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(AllowHeaders::mirror_request())
            .max_age(Duration::from_secs(3600))
    }
}
