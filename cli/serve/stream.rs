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
use super::job::Event;
use super::reply::{Parts, Reply, Usage, text_of};

/// Interval of silence after which a stream sends a comment to stay alive, for proxies that would close it.
const SILENCE: Duration = Duration::from_secs(15);

/// A response that streams what `events` bring of `answers` answers. Once it is dropped, so are they.
pub fn response(reply: Reply, events: Receiver<Event>, answers: usize) -> Response {
    let mut alive = interval(SILENCE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    alive.reset();
    let chunks = (0..answers).filter_map(|index| reply.opening(index)).map(|chunk| line(&chunk)).collect();
    let parts = (0..answers).map(|_| reply.parts()).collect();
    let stream = Chunks {
        reply,
        parts,
        events,
        running: answers,
        characters: vec![0; answers],
        usage: Usage::default(),
        chunks,
        alive,
    };
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx passes such a response on as it comes.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The events of a reply as lines.
struct Chunks {
    reply: Reply,
    /// The text of each answer, told from its calls of tools.
    parts: Vec<Parts>,
    events: Receiver<Event>,
    /// Answers that have not ended.
    running: usize,
    /// Characters of each answer so far.
    characters: Vec<usize>,
    usage: Usage,
    /// Lines that are ready.
    chunks: VecDeque<Bytes>,
    alive: Interval,
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

impl Chunks {
    /// Takes an event, or the end of all events.
    fn take(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Begun) => {}
            Some(Event::Round { index, tokens, proposed }) => {
                let (parts, characters) = (&mut self.parts[index], self.characters[index]);
                let chunk = self.reply.round(index, parts, &tokens, proposed, characters);
                self.characters[index] += text_of(&tokens).chars().count();
                self.chunks.push_back(line(&chunk));
            }
            Some(Event::Ended { index, ending }) => {
                self.usage.add(&ending);
                let (parts, characters) = (&mut self.parts[index], self.characters[index]);
                self.chunks.push_back(line(&self.reply.ending(index, parts, &ending, characters)));
                self.running -= 1;
                if self.running == 0 {
                    self.chunks.extend(self.reply.closing(&self.usage).map(|chunk| line(&chunk)));
                    self.chunks.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
                    self.events.close();
                }
            }
            Some(Event::Failed(fault)) => self.fail(&fault),
            None => self.fail(&Fault::unavailable("the answer was given up")),
        }
    }

    /// Ends the stream with an error in place of `[DONE]`, which clients raise.
    fn fail(&mut self, fault: &Fault) {
        self.chunks.push_back(line(&fault.json()));
        self.running = 0;
        self.events.close();
    }
}

impl Stream for Chunks {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(chunk) = self.chunks.pop_front() {
                self.alive.reset();
                return Poll::Ready(Some(Ok(chunk)));
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
