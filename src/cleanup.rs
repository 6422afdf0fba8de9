//! Cleans away what has expired in the table. Who adds something cleans, too: an app that nobody
//! uses asks storage for nothing.

use std::time::Duration;

use crate::app::App;
use crate::logs::chain;

/// What has expired does no harm, so there is no hurry.
const PAUSE: Duration = Duration::from_secs(6 * 60 * 60);

/// Goes on until it is dropped.
pub async fn run(app: &App) {
    loop {
        app.table.added().await;
        match app.table.sweep((app.clock)()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "expired entities were cleaned away"),
            Err(error) => tracing::warn!(cause = chain(&error), "expired entities cannot be cleaned away"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
