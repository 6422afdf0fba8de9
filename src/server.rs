//! Serves requests and runs the background loops until the process stops.

use std::sync::Arc;
use std::time::Duration;

use axum::ServiceExt;
use axum::extract::Request;
use tokio::net::TcpListener;
use tower::Layer as _;
use tower::util::MapRequestLayer;

use crate::app::App;
use crate::{expiry, functions, model_watch};

/// The time for the last recovery of spooled images before the process exits. The spool's folder may
/// be deleted with its machine, so this may be the last chance to upload them.
const LAST_RECOVERY: Duration = Duration::from_secs(20);

/// Serves requests until `shutdown` resolves.
///
/// Requests under way then finish, and so do generations whose callers have disconnected. Requests
/// that wait for a permit are refused with `busy`: the process may be killed before it could store
/// their images.
///
/// # Errors
/// If the listener fails.
pub async fn run(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = Arc::new(app);
    let router = functions::finished(functions::router(Arc::clone(&app)));
    // The path must be normalized before the router matches it, so this layer is outside the router.
    let service = MapRequestLayer::new(functions::normalize_path as fn(Request) -> Request).layer(router);
    let closing = Arc::clone(&app);
    let shutdown = async move {
        shutdown.await;
        closing.generations.stop();
    };
    let serving =
        axum::serve(listener, ServiceExt::<Request>::into_make_service(service)).with_graceful_shutdown(shutdown);
    tokio::select! {
        served = serving => served?,
        () = app.generations.keep_recovering() => {}
        () = app.generations.keep_sweeping() => {}
        () = expiry::run(&app) => {}
        () = model_watch::run(&app) => {}
    }
    app.generations.tasks.close();
    tokio::select! {
        () = app.generations.tasks.wait() => {}
        // The sweep also renews this process's lease. Without the lease, another process would end
        // the generations that are still being drawn.
        () = app.generations.keep_sweeping() => {}
    }
    if tokio::time::timeout(LAST_RECOVERY, app.generations.recover_all()).await.unwrap_or(true) {
        tracing::error!(
            event = "spool_not_empty_at_exit",
            "the process exits with images in its spool; the next process with this SPOOL_DIR uploads them"
        );
    }
    Ok(())
}
