//! A reply as server-sent events, one for each round of an answer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use futures_core::Stream;
use serde_json::Value;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::fault::Fault;
use super::job::{Ending, Event, Written};

/// Interval of silence after which a stream sends a comment to stay alive, for proxies that would close it.
const SILENCE: Duration = Duration::from_secs(15);

/// The form of a reply: what its stream says of each event, as server-sent events, or what it says of them all.
pub trait Form: Send {
    /// Events that the stream begins with.
    fn opening(&mut self) -> Vec<Bytes>;

    /// Events of a round of the answer `index`.
    fn round(&mut self, index: usize, tokens: &[Written], proposed: usize) -> Vec<Bytes>;

    /// Events of the end of the answer `index`.
    fn ending(&mut self, index: usize, ending: &Ending) -> Vec<Bytes>;

    /// Events after the end of all answers.
    fn closing(&mut self) -> Vec<Bytes>;

    /// Events of a failure, which ends the stream.
    fn failure(&mut self, fault: &Fault) -> Vec<Bytes>;

    /// The whole reply, of answers in order.
    fn whole(&mut self, answers: &[(Vec<Written>, Ending)]) -> Value;
}

/// A response that streams what `events` bring of `answers` answers. Once it is dropped, so are they.
pub fn response(mut form: Box<dyn Form>, events: Receiver<Event>, answers: usize) -> Response {
    let mut alive = interval(SILENCE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    alive.reset();
    let lines = form.opening().into();
    let stream = Lines { form, events, running: answers, lines, alive };
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx passes such a response on as it comes.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The events of a reply as lines.
struct Lines {
    form: Box<dyn Form>,
    events: Receiver<Event>,
    /// Answers that have not ended.
    running: usize,
    /// Lines that are ready.
    lines: VecDeque<Bytes>,
    alive: Interval,
}

impl Lines {
    /// Takes an event, or the end of all events.
    fn take(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Begun) => {}
            Some(Event::Round { index, tokens, proposed }) => {
                self.lines.extend(self.form.round(index, &tokens, proposed));
            }
            Some(Event::Ended { index, ending }) => {
                self.lines.extend(self.form.ending(index, &ending));
                self.running -= 1;
                if self.running == 0 {
                    self.lines.extend(self.form.closing());
                    self.events.close();
                }
            }
            Some(Event::Failed(fault)) => self.fail(&fault),
            None => self.fail(&Fault::unavailable("the answer was given up")),
        }
    }

    fn fail(&mut self, fault: &Fault) {
        self.lines.extend(self.form.failure(fault));
        self.running = 0;
        self.events.close();
    }
}

/// An event that is named after its type.
pub fn event(value: &Value) -> Bytes {
    Bytes::from(format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default()))
}

impl Stream for Lines {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                self.alive.reset();
                return Poll::Ready(Some(Ok(line)));
            }
            if self.running == 0 {
                return Poll::Ready(None);
            }
            match self.events.poll_recv(context) {
                Poll::Ready(event) => self.take(event),
                Poll::Pending if self.alive.poll_tick(context).is_ready() => {
                    return Poll::Ready(Some(Ok(Bytes::from_static(b": alive\n\n"))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
