//! `pard serve`: the models behind OpenAI's HTTP interface, and Anthropic's. One thread owns the device and gives each answer its rounds in
//! turn; what stands around it only reads requests, lets them wait and passes on what was written.

mod answer;
mod arguments;
mod ask;
mod blocks;
mod body;
mod connection;
mod encoder;
mod fault;
mod fields;
mod guard;
mod job;
mod kept;
mod logprobs;
mod messages;
mod metrics;
mod parts;
mod queue;
mod reading;
mod reply;
mod responses;
mod routes;
mod session;
mod stream;
mod worker;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::usage::usage;
use anyhow::Context;
use pard::decoding::{Limits, Method};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::load::LoadedFiles;
use crate::output::Verbosity;
pub use arguments::ServeArguments;
use ask::Defaults;
use connection::Patience;
use encoder::Encoder;
use guard::{Keys, Sites};
use job::Proposer;
use kept::KeptCaches;
use metrics::Metrics;
use queue::Queue;
use routes::App;
use worker::Worker;

/// Bytes that the system keeps of an answer that is not read: few, so that a reader who does not read is noticed.
const SEND_BUFFER: u32 = 64 << 10;
/// A body's bytes for each token of the context, and at least: escapes and names take some too.
const BYTES_PER_TOKEN: usize = 64;
const MIN_BODY: usize = 1 << 20;
/// Threads that take prompts apart.
const TOKENIZERS: usize = 4;
/// Time that the engine may take to end after its answers have, and to keep caches.
const LAST_ROUND: Duration = Duration::from_secs(10);
const KEEPING: Duration = Duration::from_secs(120);

/// Runs the command.
pub fn run(arguments: &ServeArguments) -> anyhow::Result<ExitCode> {
    let talk = Verbosity::unless(arguments.quiet);
    let keys = Keys::read(arguments.api_key_file.as_deref())?;
    if !arguments.host.is_loopback() && keys.is_empty() {
        let reason = format!(
            "other machines reach {}: name a file of keys (--api-key-file), or stay at 127.0.0.1 behind a proxy",
            arguments.host
        );
        return Err(usage("--host", reason));
    }
    let prepared = LoadedFiles::open(&arguments.decoding, talk)?;
    let open = |folder: &PathBuf| KeptCaches::open(folder, arguments.cache_size, talk);
    let kept = arguments.cache_dir.as_ref().map(open).transpose()?;
    let text = &prepared.files.target.text;
    if text.has_chat_template() {
        // A template that does not compile would fail at every chat.
        text.chat_template()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(TOKENIZERS)
        .enable_all()
        .build()
        .context("cannot start the server's threads")?;
    let _guard = runtime.enter();
    // A port that is taken is found out before anything is loaded.
    let listener = listen(SocketAddr::new(arguments.host, arguments.port))?;
    let address = listener.local_addr().context("the socket has no address")?;
    talk.note(&format!("listening on http://{address}"));

    let server = Server::start(arguments.clone(), keys, kept, prepared, talk)?;
    runtime.block_on(server.serve(listener))
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Elsewhere this would let two servers share a port.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        socket.listen(1024)
    };
    open().with_context(|| format!("cannot listen on {address}"))
}

/// The engine's thread, and what the handlers share.
struct Server {
    app: Arc<App>,
    patience: Patience,
    drain_timeout: Duration,
    /// Brings the engine's end, which nobody asked for where it fails.
    engine: oneshot::Receiver<pard::Result<()>>,
    talk: Verbosity,
}

impl Server {
    fn start(
        arguments: ServeArguments,
        keys: Keys,
        kept: Option<KeptCaches>,
        prepared: LoadedFiles,
        talk: Verbosity,
    ) -> anyhow::Result<Server> {
        let decoding = &arguments.decoding;
        let (context, parallel) = (prepared.context, usize::from(arguments.parallel));
        let queue = Arc::new(Queue::new(arguments.queue, parallel));
        let metrics = Arc::new(Metrics::default());
        let options = decoding.options(prepared.method, context);
        let proposer = Proposer { method: options.method, drafts: options.drafts }.simplest();
        let defaults = Defaults {
            sampling: options.sampling,
            limits: Limits::default()
                .max_tokens(decoding.max_tokens.unwrap_or(usize::MAX))
                .min_tokens(decoding.min_tokens)
                .stop(decoding.stop.clone()),
            proposer,
            methods: [prepared.files.methods(), vec![Method::Ngram]].concat(),
            vocab: prepared.files.target.config.vocab_size,
            keeps_caches: arguments.cache_dir.is_some(),
        };
        let target = &prepared.files.target;
        let app = Arc::new(App {
            queue: queue.clone(),
            metrics: metrics.clone(),
            sites: Sites {
                hosts: arguments.allow_host.clone(),
                origins: arguments.allow_origin.clone(),
                has_keys: !keys.is_empty(),
            },
            keys,
            encoder: Encoder::new(target.text.clone(), context, target.config.vocab_size),
            defaults,
            model: short_name(&decoding.models.model),
            draft: prepared.files.draft().map(|draft| draft.name().to_owned()),
            context,
            parallel,
            body_limit: context.saturating_mul(BYTES_PER_TOKEN).max(MIN_BODY),
            body_timeout: arguments.read_timeout,
            started: SystemTime::now(),
        });
        let patience = Patience { read: arguments.read_timeout, write: arguments.write_timeout };
        let drain_timeout = arguments.drain_timeout;
        let worker = Worker { arguments, proposer, queue, metrics, kept, talk };
        let (sender, engine) = oneshot::channel();
        let work = move || {
            let _ = sender.send(worker.run(prepared, || talk.note("ready")));
        };
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(work)
            .context("cannot start the engine's thread")?;
        Ok(Server { app, patience, drain_timeout, engine, talk })
    }

    /// Serves until it is told to end, and then lets the answers at work end.
    async fn serve(mut self, listener: TcpListener) -> anyhow::Result<ExitCode> {
        let (end, ending) = watch::channel(false);
        let served = tokio::spawn(connection::serve(listener, routes::router(self.app.clone()), self.patience, ending));
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        tokio::select! {
            () = signals.next() => {}
            ended = &mut self.engine => {
                ended.context("the engine's thread is gone")??;
            }
        }
        self.app.queue.drain();
        end.send_replace(true);
        let mut connections = served.await.context("the server's task is gone")?;
        // Said once nobody can connect any more.
        let (waiting, busy) = self.app.queue.depth();
        self.talk.note(&format!("ending; {} answers are completed first", waiting + busy));
        let mut code = ExitCode::SUCCESS;
        tokio::select! {
            () = all_of(&mut connections) => {}
            () = tokio::time::sleep(self.drain_timeout) => {
                let (waiting, busy) = self.app.queue.depth();
                self.talk.note(&format!("out of time; {} answers are cut off", waiting + busy));
            }
            // One too many means now.
            () = signals.next() => code = ExitCode::from(130),
        }
        self.app.queue.end();
        // Those that were cut off are told so, and the device is not left in the middle of a round.
        let _ = timeout(Duration::from_secs(1), all_of(&mut connections)).await;
        let patience = if self.app.defaults.keeps_caches { KEEPING } else { LAST_ROUND };
        let _ = timeout(patience, &mut self.engine).await;
        Ok(code)
    }
}

async fn all_of(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// Name that clients use for a model: that of a repository, or the last part of a file's or folder's path.
fn short_name(name: &str) -> String {
    let path = Path::new(name);
    if !path.exists() {
        return name.to_owned();
    }
    let part = if path.is_dir() { path.file_name() } else { path.file_stem() };
    part.map_or_else(|| name.to_owned(), |part| part.to_string_lossy().into_owned())
}

/// SIGINT (Ctrl-C) and SIGTERM.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(not(unix))]
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {})
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
