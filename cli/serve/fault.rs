//! Why a request is not answered, in the form that OpenAI's clients know.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pard::Error;
use serde_json::{Value, json};

/// A refusal or a failure.
#[derive(Debug, Clone)]
pub struct Fault {
    pub status: StatusCode,
    message: String,
    /// The parameter at fault.
    parameter: Option<String>,
    code: Option<&'static str>,
    /// Seconds after which to try again.
    retry_after: Option<u64>,
}

impl Fault {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Fault {
        Fault { status, message: message.into(), parameter: None, code: None, retry_after: None }
    }

    /// A parameter that cannot be had so.
    pub fn parameter(name: &str, reason: impl std::fmt::Display) -> Fault {
        let message = format!("{name}: {reason}");
        Fault { parameter: Some(name.to_owned()), ..Fault::new(StatusCode::BAD_REQUEST, message) }
    }

    /// The same where the parameter goes by another name: the first of a pair is called the second.
    pub fn renamed(mut self, names: &[(&str, &str)]) -> Fault {
        let name = self.parameter.clone().unwrap_or_default();
        if let Some((from, to)) = names.iter().find(|(from, _)| *from == name) {
            self.message = self.message.replacen(from, to, 1);
            self.parameter = Some((*to).to_owned());
        }
        self
    }

    pub fn with_code(self, code: &'static str) -> Fault {
        Fault { code: Some(code), ..self }
    }

    pub fn retry_after(self, seconds: u64) -> Fault {
        Fault { retry_after: Some(seconds), ..self }
    }

    /// The server cannot answer now.
    pub fn unavailable(reason: impl Into<String>) -> Fault {
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, reason).with_code("unavailable").retry_after(5)
    }

    /// Converts an error of the engine, which may be about a request's prompt or options, or internal.
    pub fn of(error: &Error) -> Fault {
        let message = error.to_string();
        match error {
            Error::ContextFull { tokens, context } => Fault::parameter(
                "messages",
                // The words that clients look for, such as LiteLLM's fallbacks.
                format!(
                    "This model's maximum context length is {context} tokens, and the prompt has {tokens}; shorten it"
                ),
            )
            .with_code("context_length_exceeded"),
            Error::Grammar { .. } => Fault::parameter("response_format", message),
            Error::EmptyPrompt | Error::Template { .. } | Error::Tokenizer { .. } | Error::TokenRange { .. } => {
                Fault::new(StatusCode::BAD_REQUEST, message)
            }
            Error::Option { option, reason } => Fault::parameter(option.name(), reason),
            Error::DeviceLost { .. } => Fault::unavailable("the GPU was lost; the model is being loaded again"),
            Error::OutOfMemory { .. } | Error::Limit { .. } => Fault::unavailable(message),
            _ => Fault::new(StatusCode::INTERNAL_SERVER_ERROR, message),
        }
    }

    pub fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({
            "error": { "message": self.message, "type": kind, "param": self.parameter, "code": self.code },
        })
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        // For interfaces that have another form of it.
        response.extensions_mut().insert(self);
        response
    }
}
