//! Serves requests and runs the background loops until the process stops.

mod connections;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::app::App;
use crate::{expiry, functions, model_watch};

/// The time for the last recovery of spooled images before the process exits. The spool's folder may
/// be deleted with its machine, so this may be the last chance to upload them.
const LAST_RECOVERY: Duration = Duration::from_secs(20);

/// The time for answers and silent connections after the last generation has ended, when the process stops.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Serves requests until `shutdown` resolves.
///
/// Requests under way then finish, and so do generations whose callers have disconnected. Requests
/// that wait for a permit are refused with `busy`: the process may be killed before it could store
/// their images. Once `hurry` resolves, nothing is waited for any more but the spool.
pub async fn run(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
    hurry: impl Future<Output = ()> + Send + 'static,
) {
    let app = Arc::new(app);
    let router = functions::finished(functions::router(Arc::clone(&app)));
    let shutdown = async {
        shutdown.await;
        app.generations.stop();
        app.generations.tasks.close();
    };
    // Connections that do nothing do not keep the process from ending, and generations do.
    let given_up = async {
        app.generations.tasks.wait().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    let finishing = async {
        tokio::select! {
            () = connections::serve(listener, router, shutdown, given_up) => {}
            () = app.keep_checking_identity() => {}
            () = app.generations.keep_recovering() => {}
            // The sweep also renews this process's lease. Without the lease, another process would end
            // the generations that are still being drawn.
            () = app.generations.keep_sweeping() => {}
            () = app.generations.keep_recording_texts() => {}
            () = app.gallery.keep_index(&*app.clock) => {}
            () = app.gallery.keep_making_thumbnails(&*app.clock) => {}
            () = app.gallery.keep_purging(&*app.clock) => {}
            () = expiry::run(&app) => {}
            () = model_watch::run(&app) => {}
        }
        tokio::select! {
            () = app.generations.tasks.wait() => {}
            () = app.generations.keep_sweeping() => {}
            () = app.gallery.keep_writing_index() => {}
        }
    };
    tokio::select! {
        () = finishing => {}
        // What is being written to the spool is finished: the runtime waits for its blocking tasks.
        () = hurry => {}
    }
    let last = async { tokio::join!(app.generations.recover_all(), app.generations.record_texts()).0 };
    if tokio::time::timeout(LAST_RECOVERY, last).await.unwrap_or(true) {
        tracing::error!(
            event = "spool_not_empty_at_exit",
            "the process exits with images in its spool; the next process with this SPOOL_DIR uploads them"
        );
    }
}
