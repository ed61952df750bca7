//! Reading a request's body, which may be only so large and take only so long.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use futures_core::Stream;
use serde_json::Value;

use super::fault::Fault;
use crate::text_file;

/// Maximum bytes read of a body that is too large: a client that is still sending would not see the reply.
const MAX_DISCARDED: usize = 64 << 20;

/// The JSON of a body of at most `most` bytes that comes within `timeout`.
///
/// # Errors
///
/// 400, 408, 413.
pub async fn json(body: Body, most: usize, timeout: Duration) -> Result<Value, Fault> {
    let late = |_| {
        Fault::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {} s", timeout.as_secs_f64()))
    };
    let bytes = tokio::time::timeout(timeout, read(body, most)).await.map_err(late)??;
    let wrong = |error| Fault::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}"));
    serde_json::from_slice(text_file::without_mark(&bytes)).map_err(wrong)
}

async fn read(body: Body, most: usize) -> Result<Vec<u8>, Fault> {
    let too_large = || {
        let message = format!("the body is larger than the {most} bytes that a prompt for this context needs");
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    // One that says so beforehand need not be waited for.
    if body.size_hint().lower() > MAX_DISCARDED as u64 {
        return Err(too_large());
    }
    let mut stream = body.into_data_stream();
    let (mut bytes, mut len) = (Vec::new(), 0);
    while let Some(chunk) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
        let chunk = chunk.map_err(|_| Fault::new(StatusCode::BAD_REQUEST, "the body was cut off"))?;
        len += chunk.len();
        if len <= most {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = Vec::new();
        }
        if len > MAX_DISCARDED {
            return Err(too_large());
        }
    }
    if len > most { Err(too_large()) } else { Ok(bytes) }
}
