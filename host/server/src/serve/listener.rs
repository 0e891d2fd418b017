//! One listening socket: at most so many connections, each of which must send its headers in time.
//! HTTP/1.1 alone: telling versions apart would mean waiting for a client's first bytes untimed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A client that takes longer to send its headers is cut off: it holds a connection and does nothing.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(15);
/// After a failed accept (no file descriptors left, mostly), how long until the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket that does not accept yet.
pub(crate) struct Listener {
    socket: TcpListener,
    connections: Arc<Semaphore>,
    headers_timeout: Duration,
}

/// A socket that accepts, until it is closed.
pub(crate) struct Serving {
    stop: CancellationToken,
    cut: CancellationToken,
    accepting: JoinHandle<GracefulShutdown>,
}

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub(crate) async fn bind(address: SocketAddr, connections_max: usize) -> Result<Self> {
        let socket = TcpListener::bind(address).await;
        let socket = socket.with_context(|| format!("listen on {address}"))?;
        let connections = Arc::new(Semaphore::new(connections_max));
        Ok(Self { socket, connections, headers_timeout: HEADERS_TIMEOUT })
    }

    /// The address that was bound.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.socket.local_addr().context("find the address that was bound")
    }

    /// Accepts connections and hands them to `routes`.
    pub(crate) fn serve(self, routes: Router) -> Serving {
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let accepting = tokio::spawn(self.accept(routes, stop.clone(), cut.clone()));
        Serving { stop, cut, accepting }
    }

    async fn accept(
        self,
        routes: Router,
        stop: CancellationToken,
        cut: CancellationToken,
    ) -> GracefulShutdown {
        let mut builder = Builder::new(TokioExecutor::new()).http1_only();
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.headers_timeout);
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return graceful,
                accepted = self.next() => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let (watcher, cut) = (graceful.watcher(), cut.clone());
                    let connection = Connection { stream, permit, watcher, cut };
                    tokio::spawn(connection.run(builder.clone(), routes.clone()));
                }
                Err(error) if is_of_the_client(&error) => {
                    tracing::debug!(%error, "a client left before it was accepted");
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits for a free place first: those who come later wait in the kernel's backlog.
    async fn next(&self) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.connections).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let (stream, _) = self.socket.accept().await?;
        // Tokens are small, and each is to leave at once. A client that left is found out later.
        let _ = stream.set_nodelay(true);
        Ok((stream, permit))
    }
}

/// Whether an accept failed for its one client, and the next may be tried at once.
fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    let kinds = [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted];
    kinds.contains(&error.kind())
}

struct Connection {
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    watcher: Watcher,
    cut: CancellationToken,
}

impl Connection {
    async fn run(self, builder: Builder<TokioExecutor>, routes: Router) {
        let service = TowerToHyperService::new(routes);
        let connection = builder.serve_connection(TokioIo::new(self.stream), service);
        let ended = tokio::select! {
            ended = self.watcher.watch(connection) => ended,
            () = self.cut.cancelled() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended in an error");
        }
        drop(self.permit);
    }
}

impl Serving {
    /// Cancelled, it drops every connection with whatever it was about to send.
    pub(crate) fn cut(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// Accepts no more, and waits for running answers to be written.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        match self.accepting.await {
            Ok(graceful) => graceful.shutdown().await,
            Err(error) => tracing::error!(%error, "a listener failed"),
        }
    }
}

#[cfg(test)]
mod tests;
