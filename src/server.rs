//! Serves the app until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use axum::ServiceExt;
use axum::extract::Request;
use tokio::net::TcpListener;
use tower::Layer as _;
use tower::util::MapRequestLayer;

use crate::app::App;
use crate::{expiry, functions, model_watch};

/// For the last try to store what is in the spool: a folder may go with its machine.
const LAST_TRY: Duration = Duration::from_secs(20);

/// Serves until `shutdown` resolves, then lets the requests under way finish, and the generations
/// whose callers have left. Who waits for a turn then is sent away, because nobody may be there any
/// more to store what the provider draws.
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
    // Around the router, because inside it the path has been matched already.
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
        // What is still being drawn is not taken for dead.
        () = app.generations.keep_sweeping() => {}
    }
    if tokio::time::timeout(LAST_TRY, app.generations.recover_all()).await.unwrap_or(true) {
        tracing::error!("images are left in the spool; the next process on this folder stores them");
    }
    Ok(())
}
