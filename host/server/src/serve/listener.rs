//! One listening socket: at most so many connections, each of which must send its headers in time.

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
}

/// A socket that accepts, until it is closed.
pub(crate) struct Serving {
    stop: CancellationToken,
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
        Ok(Self { socket, connections: Arc::new(Semaphore::new(connections_max)) })
    }

    /// The address that was bound.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.socket.local_addr().context("find the address that was bound")
    }

    /// Accepts connections and hands them to `routes`.
    pub(crate) fn serve(self, routes: Router) -> Serving {
        let stop = CancellationToken::new();
        let accepting = tokio::spawn(self.accept(routes, stop.clone()));
        Serving { stop, accepting }
    }

    async fn accept(self, routes: Router, stop: CancellationToken) -> GracefulShutdown {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(HEADERS_TIMEOUT));
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return graceful,
                accepted = self.next() => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let connection = Connection { stream, permit, watcher: graceful.watcher() };
                    tokio::spawn(connection.run(builder.clone(), routes.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits for a free place first: those who come later wait in the kernel's backlog.
    async fn next(&self) -> Result<(TcpStream, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.connections).acquire_owned().await?;
        let (stream, _) = self.socket.accept().await?;
        // Tokens are small, and each is to leave at once.
        stream.set_nodelay(true)?;
        Ok((stream, permit))
    }
}

struct Connection {
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    watcher: Watcher,
}

impl Connection {
    async fn run(self, builder: Builder<TokioExecutor>, routes: Router) {
        let service = TowerToHyperService::new(routes);
        let connection = builder.serve_connection(TokioIo::new(self.stream), service);
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended in an error");
        }
        drop(self.permit);
    }
}

impl Serving {
    /// Accepts no more, and waits for running answers to be written.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        match self.accepting.await {
            Ok(graceful) => graceful.shutdown().await,
            Err(error) => tracing::error!(%error, "a listener failed"),
        }
    }
}
