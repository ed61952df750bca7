//! Routes of the server, and the steps that each request goes through.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::Receiver;

use super::ask::{Ask, Defaults, Kind, Prompt, ToTokenize, ToolUse};
use super::encoder::Encoder;
use super::fault::Fault;
use super::guard::{Keys, Sites};
use super::job::{self, Echo, Ending, Event, Job, Written};
use super::metrics::Metrics;
use super::parts::Parts;
use super::queue::{Phase, Queue};
use super::reply::Reply;
use super::stream::{self, Form};
use super::{body, messages, responses};
use crate::answer::drafts_json;

/// Maximum time that a streamed answer waits for its turn before its stream begins: until then a failure has a status.
const UNTIL_TURN: Duration = Duration::from_secs(10);

/// State shared by the handlers.
pub struct App {
    pub queue: Arc<Queue>,
    pub metrics: Arc<Metrics>,
    pub keys: Keys,
    pub sites: Sites,
    pub encoder: Encoder,
    pub defaults: Defaults,
    /// The model's name for clients.
    pub model: String,
    pub draft: Option<String>,
    pub context: usize,
    pub parallel: usize,
    /// Bytes of a body at most, and how long it may take.
    pub body_limit: usize,
    pub body_timeout: Duration,
    pub started: SystemTime,
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let closed = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(text))
        .route("/v1/responses", post(response))
        .route("/v1/messages", post(message))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .route("/v1/models", get(models))
        .route("/v1/models/{*model}", get(model))
        // For clients whose base address lacks the version.
        .route("/chat/completions", post(chat))
        .route("/completions", post(text))
        .route("/responses", post(response))
        .route("/models", get(models))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn(check_encoding))
        .route_layer(middleware::from_fn_with_state(app.clone(), check_key));
    let open = Router::new().route("/", get(page)).route("/health", get(health));
    open.merge(closed)
        .fallback(|| async { Fault::new(StatusCode::NOT_FOUND, "there is nothing at this address") })
        .method_not_allowed_fallback(|| async {
            Fault::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take this method")
        })
        .layer(middleware::from_fn_with_state(app.clone(), check_and_count))
        // Before all else: it answers what browsers ask before they ask.
        .layer(app.sites.cors())
        .with_state(app)
}

async fn check_key(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Fault> {
    app.keys.check(request.headers())?;
    Ok(next.run(request).await)
}

/// Refuses a body that is packed.
async fn check_encoding(request: Request, next: Next) -> Result<Response, Fault> {
    let encoding = request.headers().get(CONTENT_ENCODING).map(|value| String::from_utf8_lossy(value.as_bytes()));
    match encoding.filter(|encoding| !encoding.trim().eq_ignore_ascii_case("identity")) {
        None => Ok(next.run(request).await),
        Some(encoding) => {
            let reason = format!("the body is packed ({encoding}); send it as it is");
            Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason))
        }
    }
}

async fn check_and_count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // Not the address itself, of which there may be any number.
    let path = request.extensions().get::<MatchedPath>().map_or("other", |path| path.as_str()).to_owned();
    // A client's own name for the request, or one to ask about it by.
    let drawn = || HeaderValue::from_str(&format!("req_{:016x}", fastrand::u64(..))).ok();
    let id = request.headers().get("x-request-id").cloned().or_else(drawn);
    let response = match app.sites.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(fault) => fault.into_response(),
    };
    let is_anthropics = path.starts_with("/v1/messages");
    let mut response = if is_anthropics { messages::refusal(response) } else { response };
    let name = HeaderName::from_static(if is_anthropics { "request-id" } else { "x-request-id" });
    response.headers_mut().extend(id.map(|id| (name, id)));
    app.metrics.request(&path, response.status().as_u16());
    response
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    complete(app, Interface::Completions(Kind::Chat), request).await
}

async fn text(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    complete(app, Interface::Completions(Kind::Text), request).await
}

async fn response(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    complete(app, Interface::Responses, request).await
}

async fn message(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    complete(app, Interface::Messages, request).await
}

/// The forms that requests and replies may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interface {
    /// OpenAI's completions, of chats and of texts.
    Completions(Kind),
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
}

impl Interface {
    /// Reads the body of a request.
    ///
    /// # Errors
    ///
    /// 400, which names the parameter.
    fn read(self, body: &Value, defaults: &Defaults) -> Result<Ask, Fault> {
        let chat = match self {
            Interface::Completions(kind) => return Ask::read(kind, body, defaults),
            Interface::Responses => responses::chat(body)?,
            Interface::Messages => messages::chat(body)?,
        };
        Ask::read(Kind::Chat, &chat, defaults).map_err(|fault| fault.renamed(self.names()))
    }

    /// Names of a chat's parameters, and the interface's own.
    fn names(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Interface::Completions(_) => &[],
            Interface::Responses => &[("response_format", "text.format"), ("messages", "input")],
            Interface::Messages => &[("response_format", "output_config.format"), ("stop", "stop_sequences")],
        }
    }
}

/// Reads a request, lets its answers be written, and replies.
async fn complete(app: Arc<App>, interface: Interface, request: Request) -> Result<Response, Fault> {
    let body = body::json(request.into_body(), app.body_limit, app.body_timeout).await?;
    let ask = interface.read(&body, &app.defaults)?;
    let repeated = if interface == Interface::Responses { responses::echo(&body) } else { Map::new() };
    drop(body);
    answer(app, interface, ask, repeated).await.map_err(|fault| fault.renamed(interface.names()))
}

/// Lets the answers to `ask` be written, and replies. `repeated` is what a response repeats of its request.
async fn answer(
    app: Arc<App>,
    interface: Interface,
    mut ask: Ask,
    repeated: Map<String, Value>,
) -> Result<Response, Fault> {
    let format = app.encoder.tool_format();
    if let Some(ToolUse { tools, choice, parallel }) = &ask.tools {
        if ask.sampling.grammar.is_some() {
            let reason = "an answer that may call tools has no other form; tool_choice none leaves them out";
            return Err(Fault::parameter("response_format", reason));
        }
        ask.sampling.grammar = format.grammar(tools, choice, *parallel);
    }
    app.queue.check_room()?;
    let prompts = std::mem::take(&mut ask.prompts);
    let (encoding, grammar, form, echo) = (app.clone(), ask.sampling.grammar.clone(), ask.form, ask.echo);
    // A long prompt takes a while, and others must not wait for it.
    let encoded = tokio::task::spawn_blocking(move || {
        if let Some(grammar) = &grammar {
            let checked = encoding.encoder.check_grammar(grammar);
            checked.map_err(|fault| fault.renamed(&[("response_format", form)]))?;
        }
        let encode = |prompt: Prompt| {
            let text = match &prompt {
                Prompt::Text(text) if echo => Some(text.clone()),
                _ => None,
            };
            let tokens = encoding.encoder.tokens(prompt)?;
            let texts = echo.then(|| encoding.encoder.texts_of(&tokens, text.as_deref()));
            Ok((tokens, texts))
        };
        prompts.into_iter().map(encode).collect::<Result<Vec<_>, Fault>>()
    });
    let failed = |_| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the tokenizer failed at this prompt");
    let prompts = encoded.await.map_err(failed)??;
    if ask.kind == Kind::Chat {
        ask.sampling.thinking = app.encoder.thinking(&prompts[0].0);
    }

    let (sender, events) = job::events();
    let prompt_tokens = prompts.iter().map(|(prompt, _)| prompt.len()).sum();
    let answers = prompts.len() * ask.n;
    let job = |index: usize| Job {
        index,
        prompt: prompts[index / ask.n].0.clone(),
        limits: ask.limits.clone(),
        sampling: ask.sampling_of(index),
        proposer: ask.proposer,
        reuse: ask.reuse,
        cache: ask.cache.clone(),
        echo: prompts[index / ask.n].1.clone().map(|texts| Echo { texts, top: ask.sampling.top_logprobs }),
        events: sender.clone(),
        queued: Instant::now(),
    };
    app.queue.push((0..answers).map(job).collect())?;
    drop(sender);
    let streams = ask.stream;
    let (model, tokenizer) = (app.model.clone(), app.encoder.tokenizer().clone());
    let form: Box<dyn Form> = match interface {
        Interface::Completions(_) => Box::new(Reply::new(ask, model, tokenizer, format, prompt_tokens, answers)),
        Interface::Responses => {
            Box::new(responses::Response::new(Parts::new(&ask, format), model, repeated, prompt_tokens))
        }
        Interface::Messages => Box::new(messages::Message::new(Parts::new(&ask, format), model, prompt_tokens)),
    };
    if streams { streamed(form, events, answers).await } else { whole(form, events, answers).await }
}

async fn streamed(form: Box<dyn Form>, mut events: Receiver<Event>, answers: usize) -> Result<Response, Fault> {
    match tokio::time::timeout(UNTIL_TURN, events.recv()).await {
        Ok(Some(Event::Failed(fault))) => Err(fault),
        Ok(None) => Err(given_up()),
        // The first event says that an answer has its turn.
        Ok(Some(_)) | Err(_) => Ok(stream::response(form, events, answers)),
    }
}

async fn whole(mut form: Box<dyn Form>, mut events: Receiver<Event>, answers: usize) -> Result<Response, Fault> {
    let mut written: Vec<(Vec<Written>, Option<Ending>)> = vec![(Vec::new(), None); answers];
    while written.iter().any(|(_, ending)| ending.is_none()) {
        match events.recv().await {
            Some(Event::Begun) => {}
            Some(Event::Round { index, tokens, .. }) => written[index].0.extend(tokens),
            Some(Event::Ended { index, ending }) => written[index].1 = Some(ending),
            Some(Event::Failed(fault)) => return Err(fault),
            None => return Err(given_up()),
        }
    }
    let complete = written.into_iter().filter_map(|(tokens, ending)| Some((tokens, ending?))).collect::<Vec<_>>();
    Ok(json_response(StatusCode::OK, &form.whole(&complete)))
}

fn given_up() -> Fault {
    Fault::unavailable("the answer was given up")
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The tokens of a text, as llama.cpp's server gives them, or of a text or a conversation, as vLLM's does.
async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    let body = body::json(request.into_body(), app.body_limit, app.body_timeout).await?;
    let ToTokenize { prompt, special, pieces, texts } = Ask::to_tokenize(&body)?;
    let ids = encode(app.clone(), prompt, special).await?;
    let bytes = |id: &u32| app.encoder.tokenizer().bytes(*id);
    let piece = |id: &u32| {
        let piece = String::from_utf8(bytes(id)).map_or_else(|other| json!(other.into_bytes()), Value::from);
        json!({ "id": id, "piece": piece })
    };
    let tokens = if pieces { ids.iter().map(piece).collect() } else { json!(ids) };
    let mut reply = json!({ "tokens": tokens, "count": ids.len(), "max_model_len": app.context });
    if texts {
        reply["token_strs"] = ids.iter().map(|id| String::from_utf8_lossy(&bytes(id)).into_owned()).collect();
    }
    Ok(json_response(StatusCode::OK, &reply))
}

/// The tokens of a prompt of any length.
async fn encode(app: Arc<App>, prompt: Prompt, special: bool) -> Result<Vec<u32>, Fault> {
    let encoded = tokio::task::spawn_blocking(move || app.encoder.all_tokens(prompt, special));
    let failed = |_| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the tokenizer failed at this prompt");
    encoded.await.map_err(failed)?
}

/// The number of a prompt's tokens, as Anthropic's clients ask for it.
async fn count_tokens(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    let body = body::json(request.into_body(), app.body_limit, app.body_timeout).await?;
    let ToTokenize { prompt, special, .. } = Ask::to_tokenize(&messages::chat_to_count(&body)?)?;
    let tokens = encode(app, prompt, special).await?;
    Ok(json_response(StatusCode::OK, &json!({ "input_tokens": tokens.len() })))
}

/// The text of tokens, under llama.cpp's name and vLLM's.
async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, Fault> {
    let body = body::json(request.into_body(), app.body_limit, app.body_timeout).await?;
    let tokens = Ask::tokens_to_detokenize(&body)?;
    let text = app.encoder.text_of(&tokens)?;
    Ok(json_response(StatusCode::OK, &json!({ "content": text, "prompt": text })))
}

async fn models(State(app): State<Arc<App>>) -> Response {
    json_response(StatusCode::OK, &json!({ "object": "list", "data": [app.describe()] }))
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Fault> {
    if name != app.model {
        let message = format!("the model here is {}", app.model);
        return Err(Fault::new(StatusCode::NOT_FOUND, message).with_code("model_not_found"));
    }
    Ok(json_response(StatusCode::OK, &app.describe()))
}

impl App {
    fn describe(&self) -> Value {
        let created = self.started.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let methods: Vec<&str> = self.defaults.methods.iter().map(|method| method.name()).collect();
        json!({
            "id": self.model,
            "object": "model",
            "created": created,
            "owned_by": "pard",
            "pard": {
                "context": self.context,
                "draft": self.draft,
                "methods": methods,
                "method": self.defaults.proposer.method.name(),
                "k": drafts_json(self.defaults.proposer.drafts),
                "parallel": self.parallel,
            },
        })
    }
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let (status, state) = match app.queue.phase() {
        _ if app.queue.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "draining" })),
        Phase::Ready => (StatusCode::OK, json!({ "status": "ok" })),
        Phase::Loading => (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "loading" })),
        Phase::Lost(reason) => (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "device lost", "reason": reason })),
    };
    json_response(status, &state)
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut response = Response::new(Body::from(app.metrics.text(&app.queue)));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

async fn page() -> Response {
    let mut response = Response::new(Body::from(include_str!("page.html")));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}
