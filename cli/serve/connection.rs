//! Connections: so many at once, that must send and read in time, until the server is told to end.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};

/// Connections at once; others wait to be accepted.
pub const MAX_CONNECTIONS: usize = 1024;
/// Bytes of a request's head at most.
const LONGEST_HEAD: usize = 64 << 10;
/// Delay before the next attempt if the system has no file descriptors left.
const BREATH: Duration = Duration::from_millis(100);

/// Timeouts for clients.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub read: Duration,
    pub write: Duration,
}

/// Serves connections until `ending` says so, and gives those that are left then, which end with their answers.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    patience: Patience,
    mut ending: watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let until = ending.clone();
    loop {
        tokio::select! {
            () = told(&mut ending) => return connections,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, router.clone(), patience, until.clone()));
                }
                Err(_) => sleep(BREATH).await,
            }
        }
    }
}

/// Waits until the server is told to end.
async fn told(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|&ends| ends).await;
}

async fn connection(stream: TcpStream, router: Router, patience: Patience, mut ending: watch::Receiver<bool>) {
    // Rounds are small and should be seen at once.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience.read).max_buf_size(LONGEST_HEAD);
    let stream = TokioIo::new(Impatient::new(stream, patience.write));
    let mut connection = pin!(builder.serve_connection(stream, TowerToHyperService::new(router)));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = told(&mut ending) => {}
    }
    connection.as_mut().graceful_shutdown();
    // A client that disconnects is not an error.
    let _ = connection.await;
}

/// A stream that fails where its peer reads nothing for too long.
struct Impatient {
    stream: TcpStream,
    patience: Duration,
    /// Runs while the peer does not read.
    deadline: Pin<Box<Sleep>>,
    waits: bool,
}

impl Impatient {
    fn new(stream: TcpStream, patience: Duration) -> Impatient {
        Impatient { stream, patience, deadline: Box::pin(sleep(patience)), waits: false }
    }

    /// `written`, or an error if it has been pending for too long.
    fn in_time<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waits = false;
            return written;
        }
        if !std::mem::replace(&mut self.waits, true) {
            self.deadline.as_mut().reset(Instant::now() + self.patience);
        }
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.in_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.in_time(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
