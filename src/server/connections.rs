//! Accepts connections and serves HTTP/1.1 on them, with limits that a silent or slow client cannot pass.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tower::Service as _;

use crate::functions;

/// Connections at a time. More wait to be accepted: a process may have 1,024 files open. Storage takes at most 64 of
/// them and 96 that are idle, and the rest is for the provider and the spool.
const MAX_CONNECTIONS: usize = 640;
/// The time for the head of a request, and for the pause between two requests on a connection. The Functions
/// host keeps unused connections for a minute; closing one earlier could break its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// A client that reads nothing of its answer for this time is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause after an error that `accept` returns, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `shutdown` resolves, then until all requests have their answers or `given_up`
/// resolves. Connections without a request are closed at once.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    given_up: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = graceful.watch(connection(stream, router.clone()));
                    tokio::spawn(async move {
                        // A client that breaks its connection is no event.
                        let _ = connection.await;
                        drop(slot);
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = shutdown => {}
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = given_up => {}
    }
}

/// Serves one connection, with the limits of this module.
fn connection(stream: TcpStream, router: Router) -> impl GracefulConnection<Error = hyper::Error> + Send {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut router = router.clone();
        // The path must be normalized before the router matches it.
        let request: Request = functions::normalize_path(request.map(Body::new));
        async move { router.call(request).await }
    });
    // Small answers leave at once.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
}
